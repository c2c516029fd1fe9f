"""What every finder in the list must do, and what each one equals."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from persona_probe.directions import FINDERS
from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    RequestError,
    SplitLeakError,
)


@pytest.mark.parametrize("name", FINDERS)
def test_a_planted_direction_is_found(name: str, planted: Any) -> None:
    # Measured at 1,000 pairs, width 32, gap 3: mean difference .996, linear probe .978.
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
    y = torch.arange(len(x)) < len(x) // 2
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    finder = FINDERS[name]()
    raw = finder.fit(x, y)
    assert finder.fit(x[order], y[order]) == pytest.approx(raw, abs=1e-6)
    assert finder.fit(x + 100.0, y) == pytest.approx(raw, abs=1e-5)


@pytest.mark.parametrize("name", FINDERS)
def test_a_weight_of_two_is_the_example_twice_and_a_weight_of_zero_is_its_absence(
    name: str, planted: Any
) -> None:
    x = planted().activations.values.transpose(0, 1).double()
    n = x.shape[1]
    y = torch.arange(n) < n // 2
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([y, ~y, torch.rand(n, generator=generator) < 0.5])
    weights = torch.randint(0, 3, (3, n), generator=generator).double()
    finder = FINDERS[name]()
    many = finder.fit_many(x, labels, weights)
    assert many.shape == (3, 3, 32)
    for draw in range(3):
        rows = torch.repeat_interleave(torch.arange(n), weights[draw].long())
        for site in range(3):
            repeated = finder.fit(x[site, rows], labels[draw, rows])
            # The two solvers of the probe stop at a tolerance: directions agree to 1e-5.
            cosine = torch.cosine_similarity(many[draw, site], repeated, dim=0)
            assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", FINDERS)
def test_a_finder_holds_settings_only_and_can_be_compared(name: str) -> None:
    assert FINDERS[name]() == FINDERS[name]()
    assert FINDERS[name].name == name
    with pytest.raises(AttributeError):
        FINDERS[name]().name = "other"


def test_the_mean_difference_is_the_difference_of_means(planted: Any) -> None:
    x = planted().activations.values[:, 0]
    y = torch.arange(len(x)) < 50
    raw = FINDERS["mean_difference"]().fit(x, y)
    assert raw == pytest.approx(x[:50].double().mean(0) - x[50:].double().mean(0), abs=1e-9)


def test_the_linear_probe_is_the_pipeline_of_scikit_learn(planted: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from persona_probe.directions.linear_probe import LinearProbe

    x = planted().activations.values[:, 0] * torch.linspace(0.1, 10, 32)
    y = torch.arange(len(x)) < len(x) // 2
    raw = LinearProbe(c=0.3).fit(x, y)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-5))
    pipeline.fit(x.double().numpy(), y.numpy())
    decision = pipeline.decision_function(x.double().numpy())
    ours = (x.double() @ raw).numpy()
    assert ours - ours.mean() == pytest.approx(decision - decision.mean(), abs=1e-9)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_many_probes_at_once_are_those_of_scikit_learn(c: float, planted: Any) -> None:
    """Separable and not, badly scaled, with a constant feature, at strong and weak penalties."""
    from persona_probe.directions.finder import Finder
    from persona_probe.directions.linear_probe import LinearProbe

    x = planted(gap=6.0, per_family=4).activations.values.transpose(0, 1).double()
    x = x * torch.logspace(-2, 2, 32) + 50.0
    x[..., 7] = 3.0
    n = x.shape[1]
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.arange(n) < n // 2, torch.rand(n, generator=generator) < 0.3])
    weights = torch.randint(0, 3, (2, n), generator=generator).double()
    probe = LinearProbe(c=c, tolerance=1e-8)
    many = probe.fit_many(x, labels, weights)
    each = Finder.fit_many(probe, x, labels, weights)
    assert (torch.cosine_similarity(many, each, dim=-1) > 1 - 1e-6).all()
    assert many.norm(dim=-1) == pytest.approx(each.norm(dim=-1), rel=1e-3)


def test_probes_that_do_not_converge_in_a_batch_are_handed_to_scikit_learn(planted: Any) -> None:
    from persona_probe.directions.linear_probe import LinearProbe
    from persona_probe.directions.logistic import logistic_weights

    x = planted().activations.values[:, :1].transpose(0, 1).double()
    n = x.shape[1]
    labels = (torch.arange(n) < n // 2).expand(2, -1)
    weights = torch.ones(2, n, dtype=torch.float64)
    _, converged = logistic_weights(x, labels, weights, c=1.0, max_iter=3, tolerance=1e-6)
    assert not converged.any()
    with pytest.warns(UserWarning, match="converge"):
        many = LinearProbe(max_iter=3).fit_many(x, labels, weights)
    with pytest.warns(UserWarning, match="converge"):
        expected = LinearProbe(max_iter=3).fit(x[0], labels[0])
    assert many[0, 0] == pytest.approx(expected, abs=1e-12)


def test_an_unknown_finder_is_refused_with_the_choices() -> None:
    from persona_probe.directions import finder_named

    with pytest.raises(RequestError, match="choose one of mean_difference, linear_probe"):
        finder_named("telepathy")


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
        "import sys, persona_probe.directions, persona_probe.directions.validation\n"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_sets_become_one_contrast_whose_pairs_are_kept(planted: Any) -> None:
    from dataclasses import replace

    from persona_probe.activations.columns import InMemory
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.opposed import opposed
    from persona_probe.directions.relabelling import pair_index
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
