"""Figures of rows that the library's own objects give, as in a notebook."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from persona_probe.activations.activation_set import ActivationSet

D_MODEL, N, FAMILIES = 12, 64, 8


@pytest.fixture(scope="module")
def world() -> dict[str, "ActivationSet"]:
    """A model before finetuning, two seeds that moved along axis 0, a placebo that hardly moved.

    "contrast" is the model before as "hero" and as no one, apart along axis 0.
    """
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    rng = np.random.default_rng(0)
    axis = np.eye(D_MODEL)[0]

    def activations(values: np.ndarray, labels: tuple[str, ...], prefix: str) -> ActivationSet:
        n = len(labels)
        names = tuple(f"{prefix}-{i % N}" for i in range(n))
        families = tuple(f"{prefix}-family-{(i % N) // (N // FAMILIES)}" for i in range(n))
        about = Provenance(model="planted", model_hash="0123456789abcdef")
        x = torch.from_numpy(values[:, None, :].repeat(2, axis=1)).float()
        sites = (Site(0), Site(1))
        return ActivationSet.of(x, sites, "last_prompt_token", names, labels, families, about)

    base = rng.normal(size=(N, D_MODEL))
    moved = {
        name: base + size * axis + 0.2 * rng.normal(size=(N, D_MODEL))
        for name, size in (("seed0", 2.0), ("seed1", 2.0), ("placebo", 0.0))
    }
    sides = rng.normal(size=(2 * N, D_MODEL))
    sides[:N] += 3.0 * axis
    found = {name: activations(x, ("",) * N, "held") for name, x in moved.items()}
    found["before"] = activations(base, ("",) * N, "held")
    found["contrast"] = activations(sides, ("hero",) * N + ("neutral",) * N, "find")
    return found


@pytest.fixture(scope="module")
def directions(world: dict[str, "ActivationSet"]) -> Any:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.mean_difference import MeanDifference

    return {"hero": find_directions(world["contrast"], MeanDifference(), "hero", "neutral")}


def test_a_comparison_is_drawn_with_intervals_null_and_bounds(
    world: dict[str, "ActivationSet"], directions: Any
) -> None:
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.report.figures import shift_cosine

    found = compare(
        world["before"], world["seed0"], directions,
        placebo=world["placebo"], second_seed=world["seed1"], draws=40,
    )  # fmt: skip
    figure = shift_cosine(found.to_json()["rows"])
    traces = {trace.name: trace for trace in figure.data}
    line = traces["direction and finetuning shift"]
    assert list(line.x) == [0, 1]
    assert min(line.y) > 0.8
    assert max(line.error_y.array) > 0
    assert (
        max(traces["placebo finetuning (floor)"].y) < 0.8 < min(traces["second seed (ceiling)"].y)
    )
    assert any("swapped" in str(name) for name in traces)


def test_pairs_of_finetunes_make_a_map(world: dict[str, "ActivationSet"], directions: Any) -> None:
    from persona_probe.directions.before_after.finetunes import compare_finetunes
    from persona_probe.report.figures import cosine_map

    found = compare_finetunes(
        world["before"], {name: world[name] for name in ("seed0", "seed1", "placebo")},
        placebo="placebo", second_seed="seed1", draws=20,
    )  # fmt: skip
    figure = cosine_map(found.to_json()["pairs"])
    names = list(figure.layout.yaxis.ticktext)
    grid = figure.data[0].z
    own = grid[names.index("Seed0")][names.index("Seed1")]
    assert own > 0.9 > abs(grid[names.index("Seed0")][names.index("Placebo")])
    assert "second seeds (ceiling)" in figure.layout.title.text
    assert "layer 0" in figure.layout.title.text


def test_a_validation_makes_a_layer_profile(
    world: dict[str, "ActivationSet"], directions: Any
) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finders.mean_difference import MeanDifference
    from persona_probe.report.figures import layer_profile

    contrast = world["contrast"]
    families = sorted(set(contrast.families))
    halves = [contrast.where(families=families[i::2]) for i in range(2)]
    from persona_probe.directions.finder import find_directions

    found = find_directions(halves[0], MeanDifference(), "hero", "neutral")
    table = validate(
        found, halves[1], found_on=halves[0], finder=MeanDifference(),
        permutations=19,
    )  # fmt: skip
    rows = [row | {"persona": "hero"} for row in table.to_json()["rows"]]
    figure = layer_profile(rows)
    line = next(trace for trace in figure.data if trace.name == "Hero")
    assert list(line.x) == [0, 1]
    assert min(line.y) > 0.9
    assert any("shuffled labels" in str(trace.name) for trace in figure.data)


def test_projections_of_any_activations_make_histograms(
    world: dict[str, "ActivationSet"], directions: Any
) -> None:
    from persona_probe.models.site import Site
    from persona_probe.report.figures import projection_histogram
    from persona_probe.statistics import mean_interval

    direction = directions["hero"][Site(0)]
    rows = []
    for kind, name in (("helpful_only", "before"), ("finetuned", "seed0")):
        part = world[name]
        values = direction.project(part.site(Site(0))).numpy()
        mean = mean_interval(values, part.families, resamples=200).to_json()
        persona = "hero" if kind == "finetuned" else None
        rows.append({"direction": "hero", "contrast": "model_diff", "arm_kind": kind,
                     "persona": persona, "values": values.tolist(), "mean": mean})  # fmt: skip
    figure = projection_histogram(rows)
    assert {"helpful-only", "finetuned"} <= {trace.name for trace in figure.data}
    assert f"helpful-only {N}, finetuned {N}" in figure.layout.title.text
