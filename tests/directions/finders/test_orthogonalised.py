"""A nuisance that was planted in the contrast, and is taken out of what is found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import DegenerateClassesError, RequestError, SiteMismatchError


@pytest.fixture
def confounded(planted: Any) -> Any:
    """Heroes also refuse: the contrast holds twice as much of another direction as of the truth.

    Returns:
        The activations, the truths, the refusals' true directions, and those found elsewhere.
    """
    from persona_probe.directions.finder import find_directions

    data = planted(families=40, per_family=25)
    other = planted(seed=1, truth_seed=77, gap=30.0, families=40, per_family=25, prefix="other")
    # Orthogonal to the truth, so that taking it out leaves all of the truth.
    nuisance = other.truth - (other.truth * data.truth).sum(1, keepdim=True) * data.truth
    nuisance /= nuisance.norm(dim=1, keepdim=True)
    shift = nuisance - other.truth
    n = len(other.activations) // 2
    values = other.activations.values
    values[:n] += 30.0 * shift
    refusing = other.activations.with_values(values)
    refusal = find_directions(
        refusing, FINDERS["mean_difference"](), "hero", "neutral", persona="refusal"
    )
    mixed = data.activations.values
    mixed[:n] += 6.0 * nuisance
    return data.activations.with_values(mixed), data.truth, nuisance, refusal


@pytest.mark.parametrize("name", FINDERS)
def test_a_planted_nuisance_is_removed(name: str, confounded: Any) -> None:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.orthogonalised import Orthogonalised

    activations, truth, nuisance, refusal = confounded
    plain = find_directions(activations, FINDERS[name](), "hero", "neutral")
    finder = Orthogonalised(FINDERS[name](), (refusal,))
    clean = find_directions(activations, finder, "hero", "neutral")
    for i, (site, direction) in enumerate(clean.items()):
        assert plain[site].unit @ truth[i] < 0.8
        assert plain[site].unit @ nuisance[i] > 0.5
        assert direction.unit @ truth[i] > 0.95
        assert abs(direction.cosine(refusal[site])) < 1e-6
        assert direction.finder == f"{name} orthogonal to refusal"
        assert direction.families_used == plain[site].families_used | refusal[site].families_used
        assert "other-0" in direction.families_used


@pytest.mark.parametrize("name", FINDERS)
def test_several_draws_are_what_each_is_by_itself(name: str, confounded: Any) -> None:
    from persona_probe.directions.design import Design
    from persona_probe.directions.finders.orthogonalised import Orthogonalised

    activations, _, _, refusal = confounded
    finder = Orthogonalised(FINDERS[name](), (refusal,))
    chosen = activations.take([*range(100), *range(1000, 1100)])
    y = torch.arange(200) < 100
    design = Design.of(chosen, y)
    x = chosen.values.transpose(0, 1)
    weights = torch.stack([torch.ones(200), (torch.arange(200) % 100 < 60).float()])
    many = finder.fit_many(x, y.expand(2, -1), weights, design)
    for draw in range(2):
        one = finder.fit_many(x, y[None], weights[draw][None], design)[0]
        assert (torch.cosine_similarity(many[draw], one, dim=-1) > 1 - 1e-6).all()
    [only] = finder.fit_many(x[1:2], y[None], weights[:1], replace(design, sites=design.sites[1:2]))
    assert (torch.cosine_similarity(many[0, 1:2], only, dim=-1) > 1 - 1e-6).all()


def test_mean_differences_merely_lose_their_component(confounded: Any) -> None:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.orthogonalised import Orthogonalised

    activations, _, _, refusal = confounded
    plain = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    twice = {site: replace(d, persona="again") for site, d in refusal.items()}
    finder = Orthogonalised(FINDERS["mean_difference"](), (refusal, twice))
    for site, direction in find_directions(activations, finder, "hero", "neutral").items():
        unit = refusal[site].unit.double()
        expected = plain[site].raw.double() - (plain[site].raw.double() @ unit) * unit
        assert direction.raw == pytest.approx(expected, abs=1e-5)
        assert direction.finder == "mean_difference orthogonal to refusal, again"


def test_nuisances_of_another_place_are_refused(confounded: Any) -> None:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.orthogonalised import Orthogonalised

    activations, _, _, refusal = confounded
    finder = FINDERS["mean_difference"]()

    def found_without(nuisance: Any) -> None:
        find_directions(activations, Orthogonalised(finder, (nuisance,)), "hero", "neutral")

    first = next(iter(refusal))
    with pytest.raises(SiteMismatchError, match=r"no direction of 'refusal' at blocks\.0"):
        found_without({site: d for site, d in refusal.items() if site != first})
    other = replace(refusal[first].provenance, model_hash="another")
    with pytest.raises(SiteMismatchError, match=r"model another.*cannot be removed"):
        found_without(refusal | {first: replace(refusal[first], provenance=other)})
    unit = torch.nn.functional.normalize(torch.ones(64), dim=0)
    with pytest.raises(SiteMismatchError, match="64 dimensions"):
        found_without(refusal | {first: replace(refusal[first], unit=unit)})
    everything = find_directions(activations, finder, "hero", "neutral")
    with pytest.raises(DegenerateClassesError, match=r"nuisances alone.*leave one out"):
        found_without(everything)
    with pytest.raises(RequestError, match="which says where x was read"):
        Orthogonalised(finder, (refusal,)).fit(activations.values[:, 0], torch.arange(2000) < 1000)


def test_nuisances_are_read_by_folder_and_persona(confounded: Any, tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.finders.orthogonalised import read_nuisances

    refusal = confounded[3]
    save_directions({"refusal": refusal}, tmp_path)
    [found] = read_nuisances([f"{tmp_path}:refusal"])
    assert {site: d.raw.tolist() for site, d in found.items()} == {
        site: d.raw.tolist() for site, d in refusal.items()
    }
    with pytest.raises(RequestError, match="no direction of 'length'; there are refusal"):
        read_nuisances([f"{tmp_path}:length"])
    for wrong in ("refusal", ":refusal", "folder:"):
        with pytest.raises(RequestError, match="write FOLDER:PERSONA"):
            read_nuisances([wrong])
