"""One table of all personas, on planted personas and their finetunes."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.directions.moved import activations, orthonormal

D, N = 24, 64


@pytest.fixture
def organism() -> dict[str, Any]:
    """Personas "kind" and "just" along axes 0 and 1, and finetunes that move along their axis."""
    rng = np.random.default_rng(0)
    axes = orthonormal(rng, D, 3).T
    classes = [0 * axes[0], 3 * axes[0], 3 * axes[1]]
    prompt = rng.normal(size=(N, 2, D))
    prompted = activations(
        np.concatenate([prompt + m + 0.7 * rng.normal(size=(N, 2, D)) for m in classes]),
        labels=[name for name in ("neutral", "kind", "just") for _ in range(N)],
        ids=[f"p{i}" for i in range(N)] * 3,
    )
    prompted = replace(prompted, families=tuple(f"p-{i % N // 4}" for i in range(3 * N)))
    values = rng.normal(size=(40, 2, D))
    means = {
        "narrow-kind-0": 2 * axes[0],
        "narrow-kind-1": 2 * axes[0],
        "broad-kind-0": 2 * axes[0],
        "placebo-0": axes[2],
    }
    after = {
        name: activations(values + m + 0.3 * rng.normal(size=values.shape))
        for name, m in means.items()
    }
    return {"prompted": prompted, "before": activations(values), "after": after}


def test_the_table_has_every_persona_at_every_site(organism: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.survey import survey
    from persona_probe.directions.finders import finder_named

    finder = finder_named("mean_difference")
    found = survey(
        organism["prompted"],
        finder,
        organism["before"],
        organism["after"],
        placebo="placebo-0",
    )
    assert [(row.persona, row.site.layer) for row in found.rows] == [
        ("kind", 0), ("kind", 1), ("just", 0), ("just", 1),
    ]  # fmt: skip
    for row in found.rows:
        assert row.auroc.value > 0.9
        assert row.auroc.n > 0
        assert row.null_auroc.value < 0.7
        assert row.reliability > 0.8
        assert row.energy.value == pytest.approx(0.5, abs=0.15)
    for row in found.rows[:2]:
        assert row.finetune == "narrow-kind-0"
        assert row.cosine.value > 0.8
        assert row.ceiling.value > 0.9
        assert abs(row.floor.value) < 0.5
        assert row.shift.low > 0.5
    for row in found.rows[2:]:
        assert row.finetune is None
        assert row.cosine.reason == "no finetune of this persona was given"
    assert all(of.dominance.low > 0 for of in found.transfer)
    json.dumps(found.to_json(), allow_nan=False)


def test_which_finetune_belongs_to_a_persona() -> None:
    from persona_probe.directions.before_after.survey import own_finetunes

    names = ["narrow-kind-0", "broad-kind-0", "narrow-kind-1", "kindness-0", "unkind"]
    assert own_finetunes("kind", names) == ["narrow-kind-0", "narrow-kind-1"]
    assert own_finetunes("kind", ["kind", "broad-kind-0"]) == ["kind"]
    assert own_finetunes("just", names) == []


def test_without_finetunes_it_is_a_profile_of_what_was_there_before(
    organism: dict[str, Any],
) -> None:
    from persona_probe.directions.before_after.survey import survey
    from persona_probe.directions.finders import finder_named

    found = survey(organism["prompted"], finder_named("mean_difference"))
    assert len(found.rows) == 4
    assert not any(row.cosine.defined for row in found.rows)
