"""What every finder in the list must do, and what each one equals."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    RequestError,
    SplitLeakError,
)
from tests.directions.designs import fit, in_pairs


@pytest.mark.parametrize("name", FINDERS)
def test_a_planted_direction_is_found(name: str, planted: Any) -> None:
    # Least cosine of the three sites at 1,000 pairs, width 32, classes 3 noise deviations apart:
    # mean difference .996, linear probe .978, whitened difference .989, shrinkage LDA .994,
    # principal component .995. At 128 pairs: .958, .823, .912, .947, .950.
    from persona_probe.directions.finder import find_directions

    data = planted(families=40, per_family=25)
    found = find_directions(data.activations, FINDERS[name](), "hero", "neutral")
    for i, direction in enumerate(found.values()):
        assert direction.unit @ data.truth[i] > 0.95


@pytest.mark.parametrize("name", FINDERS)
def test_exchanging_the_labels_turns_the_direction_round(name: str, planted: Any) -> None:
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    there = find_directions(activations, FINDERS[name](), "hero", "neutral")
    back = find_directions(activations, FINDERS[name](), "neutral", "hero")
    for site, direction in there.items():
        assert direction.cosine(back[site]) == pytest.approx(-1, abs=1e-5)
        assert direction.gap == pytest.approx(back[site].gap, rel=1e-4)


@pytest.mark.parametrize("name", FINDERS)
def test_the_order_of_examples_and_a_shift_of_all_of_them_change_nothing(
    name: str, planted: Any
) -> None:
    x = planted().activations.values[:, 0].double()
    design = in_pairs(len(x))
    y = torch.arange(len(x)) < len(x) // 2
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    finder = FINDERS[name]()
    raw = fit(finder, x, y, design)
    assert torch.isfinite(raw).all()
    same = fit(finder, x[order], y[order], design.take(order))
    # The solvers of the probe and of the principal component stop at a tolerance.
    assert same == pytest.approx(raw, abs=1e-4 * float(raw.norm()))
    shifted = fit(finder, x + 100.0, y, design)
    assert shifted == pytest.approx(raw, abs=1e-4 * float(raw.norm()))


@pytest.mark.parametrize("name", FINDERS)
def test_the_unit_of_the_activations_does_not_matter(name: str, planted: Any) -> None:
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    larger = activations.with_values(activations.values * 1000.0)
    found = find_directions(activations, FINDERS[name](), "hero", "neutral")
    for site, direction in find_directions(larger, FINDERS[name](), "hero", "neutral").items():
        assert direction.cosine(found[site]) == pytest.approx(1, abs=1e-5)
        assert direction.gap == pytest.approx(1000.0 * found[site].gap, rel=1e-4)


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("width", [32, 12])
def test_a_weight_of_two_is_the_example_twice_and_a_weight_of_zero_is_its_absence(
    name: str, width: int, planted: Any
) -> None:
    """So all sites and draws at once are what each is by itself; more examples than axes or not."""
    data = planted(families=4 if width == 32 else 16, per_family=3, d_model=width)
    x = data.activations.values.transpose(0, 1).double()
    n = x.shape[1]
    y = torch.arange(n) < n // 2
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([y, ~y, torch.rand(n, generator=generator) < 0.5])
    weights = torch.randint(0, 3, (3, n), generator=generator).double()
    design = in_pairs(n, sites=3)
    finder = FINDERS[name]()
    many = finder.fit_many(x, labels, weights, design)
    assert many.shape == (3, 3, width)
    for draw in range(3):
        rows = torch.repeat_interleave(torch.arange(n), weights[draw].long())
        for site in range(3):
            repeated = fit(finder, x[site, rows], labels[draw, rows], design.take(rows))
            # The probe's solver stops at a tolerance: directions agree to 1e-5.
            cosine = torch.cosine_similarity(many[draw, site], repeated, dim=0)
            assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", FINDERS)
def test_a_class_that_is_missing_in_a_draw_is_refused(name: str, planted: Any) -> None:
    x = planted(families=2).activations.values.transpose(0, 1).double()
    n = x.shape[1]
    y = torch.arange(n) < n // 2
    weights = torch.stack([torch.ones(n), y.float()])
    with pytest.raises(DegenerateClassesError, match="got 16 positive and 0 negative ones"):
        FINDERS[name]().fit_many(x, y.expand(2, -1), weights, in_pairs(n, 3))


@pytest.mark.parametrize("name", FINDERS)
def test_two_planted_personas_are_separated(name: str, planted: Any) -> None:
    """Found together, each direction is its own truth's; the truths have a cosine below .2."""
    from dataclasses import replace

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.finder import find_contrasts, find_directions

    size = {"families": 40, "per_family": 25, "gap": 6.0}
    hero, villain = planted(**size), planted(seed=1, truth_seed=5678, **size)
    assert (hero.truth * villain.truth).sum(dim=1).abs().max() < 0.3
    n = len(hero.activations) // 2
    labels = ("hero",) * n + ("neutral",) * n + ("villain",) * n
    ids = (*hero.activations.ids, *hero.activations.ids[:n])
    values = [hero.activations.values, villain.activations.values[:n]]
    # The villain answers the hero's prompts: what is not his own comes from the hero's set.
    neutral = hero.activations.values[n:]
    values[1] = neutral + values[1] - villain.activations.values[n:]
    both = ActivationSet.of(
        torch.cat(values),
        hero.activations.sites,
        "last_prompt_token",
        ids,
        labels,
        (*hero.activations.families, *hero.activations.families[:n]),
        hero.activations.provenance,
    )
    finder = FINDERS[name]()
    found = find_contrasts(both, finder, ["hero", "villain"], "neutral")
    for i, site in enumerate(both.sites):
        assert found["hero"][site].unit @ hero.truth[i] > 0.95
        assert found["villain"][site].unit @ villain.truth[i] > 0.95
        assert abs(found["villain"][site].cosine(found["hero"][site])) < 0.4
        alone = find_directions(both, finder, "villain", "neutral")[site]
        assert alone.cosine(found["villain"][site]) == pytest.approx(1, abs=1e-6)
        assert alone.gap == pytest.approx(found["villain"][site].gap, rel=1e-4)
        assert replace(alone, unit=found["villain"][site].unit).norm == found["hero"][site].norm


@pytest.mark.parametrize("name", FINDERS)
def test_a_finder_holds_settings_only_and_can_be_compared_and_cloned(name: str) -> None:
    from sklearn.base import clone

    assert FINDERS[name]() == FINDERS[name]()
    assert FINDERS[name].name == name
    assert clone(FINDERS[name]()) == FINDERS[name]()
    with pytest.raises(AttributeError):
        FINDERS[name]().name = "other"


def test_the_mean_difference_is_the_difference_of_means(planted: Any) -> None:
    x = planted().activations.values[:, 0]
    y = torch.arange(len(x)) < 50
    raw = FINDERS["mean_difference"]().fit(x, y)
    assert raw == pytest.approx(x[:50].double().mean(0) - x[50:].double().mean(0), abs=1e-9)


def test_without_the_mean_difference_the_class_means_are_equal(planted: Any) -> None:
    """The identity that linear concept erasure rests on."""
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    found = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    n = len(activations) // 2
    for i, direction in enumerate(found.values()):
        x, unit = activations.values[:, i].double(), direction.unit.double()
        assert (x[:n].mean(0) - x[n:].mean(0)).norm() > 1
        erased = x - (x @ unit)[:, None] * unit
        assert (erased[:n].mean(0) - erased[n:].mean(0)).norm() < 1e-5


def test_the_direction_is_persona_vectors_difference_of_averages(planted: Any) -> None:
    """Mean over the persona's responses minus mean over the others', layer by layer."""
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    n = len(activations) // 2
    stacked = activations.values.transpose(0, 1)
    theirs = stacked[:, :n].mean(dim=1) - stacked[:, n:].mean(dim=1)
    found = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    for i, direction in enumerate(found.values()):
        assert direction.raw == pytest.approx(theirs[i], abs=1e-4)


def test_an_unknown_finder_is_refused_with_the_choices() -> None:
    from persona_probe.directions.finders import finder_named

    with pytest.raises(RequestError, match="choose one of mean_difference, linear_probe, white"):
        finder_named("telepathy")
    with pytest.raises(RequestError, match="has no setting 'c'; only linear_probe has"):
        finder_named("mean_difference", c=1.0)
    assert finder_named("linear_probe", c=0.1).get_params()["c"] == 0.1
    with pytest.raises(RequestError, match="needs its nuisance directions"):
        finder_named("mean_difference orthogonal to refusal")


def test_sign_and_scale_do_not_depend_on_what_the_finder_returns(planted: Any) -> None:
    from persona_probe.directions.finder import Finder, find_directions

    @dataclass(frozen=True)
    class Backwards(Finder):
        name: ClassVar[str] = "backwards"

        def fit(self, x: Any, y: Any, weights: Any = None) -> Any:  # noqa: ARG002
            return -1e-3 * (x[y].mean(0) - x[~y].mean(0))

    activations = planted().activations
    expected = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    found = find_directions(activations, Backwards(), "hero", "neutral")
    for site, direction in found.items():
        assert direction.cosine(expected[site]) == pytest.approx(1, abs=1e-6)
        assert direction.gap == pytest.approx(expected[site].gap, rel=1e-5)
        assert direction.finder == "backwards"


def test_a_direction_carries_where_it_came_from(planted: Any) -> None:
    from persona_probe.directions.finder import find_directions
    from persona_probe.models.site import Site
    from persona_probe.personas.splits import split_families

    data = planted().activations
    split = split_families(data.families, seed=0)
    find_part = data.where(families=split.find)
    finder = FINDERS["mean_difference"]()
    norms = dict.fromkeys(data.sites, 7.0)
    direction = find_directions(
        find_part, finder, "hero", "neutral", persona="deontology", split=split, norms=norms
    )[Site(1)]
    assert direction.persona == "deontology"
    assert direction.split_hash == direction.provenance.split_hash == split.hash
    assert direction.families_used == split.find
    assert direction.provenance.model_hash == data.provenance.model_hash
    assert (direction.norm, direction.position) == (7.0, "last_prompt_token")
    measured = find_directions(find_part, finder, "hero", "neutral")[Site(1)].norm
    neutral = find_part.where(labels=["neutral"]).site(Site(1))
    assert measured == pytest.approx(float(neutral.norm(dim=1).median()), rel=1e-5)
    with pytest.raises(SplitLeakError, match="'find' part"):
        find_directions(data, finder, "hero", "neutral", split=split)


def test_a_missing_class_or_two_equal_classes_are_refused(planted: Any) -> None:

    from persona_probe.directions.finder import find_directions

    finder = FINDERS["mean_difference"]()
    activations = planted().activations
    with pytest.raises(DegenerateClassesError, match="0 labelled 'villain'"):
        find_directions(activations, finder, "villain", "neutral")
    n = len(activations) // 2
    same = activations.with_values(activations.values[:n].repeat(2, 1, 1))
    with pytest.raises(DegenerateClassesError, match=r"coincide at blocks\.0\.hook_out"):
        find_directions(same, finder, "hero", "neutral")
    broken = activations.with_values(activations.values * float("nan"))
    with pytest.raises(PersonaProbeError, match="NaN"):
        find_directions(broken, finder, "hero", "neutral")


def test_importing_the_room_does_not_import_scikit_learn() -> None:
    import subprocess
    import sys

    code = (
        "import sys, persona_probe.directions, persona_probe.directions.checks.validation\n"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_sets_become_one_contrast_whose_pairs_are_kept(planted: Any) -> None:
    from dataclasses import replace

    from persona_probe.activations.columns import InMemory
    from persona_probe.directions.checks.relabelling import pair_index
    from persona_probe.directions.families.opposed import opposed
    from persona_probe.directions.finder import find_directions
    from persona_probe.errors import SiteMismatchError

    data = planted()
    after = data.activations.where(labels=["hero"])
    before = data.activations.where(labels=["neutral"])
    both = opposed(after, before)
    y = torch.tensor([label == "after" for label in both.labels])
    assert pair_index(both.ids, y) is not None
    finder = FINDERS["mean_difference"]()
    shift = find_directions(both, finder, "after", "before", family="model_diff")
    expected = find_directions(data.activations, finder, "hero", "neutral")
    for site, direction in shift.items():
        assert (direction.raw == expected[site].raw).all()
        assert direction.family == "model_diff"
    fewer = InMemory(before.values[:, :2], before.sites[:2])
    with pytest.raises(SiteMismatchError, match="same sites"):
        opposed(after, replace(before, columns=fewer))
    with pytest.raises(RequestError, match="response_mean"):
        opposed(after, replace(before, position="response_mean"))


def test_accumulation_is_exact_enough_beside_a_large_common_mean(planted: Any) -> None:
    """A residual stream with a mean of 1e4 and a class difference of 1e-2."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=64)
    x = 1e4 + rng.normal(size=(400, 64)) * 1e-3
    x[:200] += 1e-2 * truth
    y = torch.arange(400) < 200
    raw = FINDERS["mean_difference"]().fit(torch.from_numpy(x), y)
    assert torch.cosine_similarity(raw, torch.from_numpy(truth), dim=0) > 0.999
