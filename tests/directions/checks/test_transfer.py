"""The transfer matrix, on personas that are unrelated and on some that are not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from persona_probe.errors import DegenerateClassesError, RequestError, SplitLeakError
from tests.directions.moved import activations, orthonormal

PERSONAS = ("a", "b", "c")


@pytest.fixture
def prompted() -> Callable[..., Any]:
    """Personas a, b and c along axes of their own; c's examples also move along a's."""

    def make(prefix: str = "held", leak: float = 0.0, seed: int = 0, n: int = 60) -> Any:
        axes = orthonormal(np.random.default_rng(99), 24, 3).T * 3.0
        axes[2] = axes[2] + leak * axes[0]
        rng = np.random.default_rng(seed)
        classes = [np.zeros(24), *axes]
        values = np.concatenate([m + rng.normal(size=(n, 2, 24)) for m in classes])
        labels = [name for name in ("neutral", *PERSONAS) for _ in range(n)]
        return activations(
            values, labels=labels, ids=[f"{prefix}-{i}" for i in range(n)] * 4, prefix=prefix
        )

    def one_family_per_prompt(*args: Any, **options: Any) -> Any:
        from dataclasses import replace

        found = make(*args, **options)
        numbers = [int(name.rpartition("-")[2]) // 4 for name in found.ids]
        prefix = found.ids[0].rpartition("-")[0]
        return replace(found, families=tuple(f"{prefix}-{number}" for number in numbers))

    return one_family_per_prompt


def found_in(prompted: Any) -> dict[str, Any]:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.mean_difference import MeanDifference

    return {p: find_directions(prompted, MeanDifference(), p, "neutral") for p in PERSONAS}


def test_the_diagonal_dominates_and_a_one_way_leak_stays_one_way(
    prompted: Callable[..., Any],
) -> None:
    from sklearn.metrics import roc_auc_score

    from persona_probe.directions.checks.transfer import transfer_matrix

    directions = found_in(prompted("found", seed=1))
    held = prompted(leak=1.0)
    found = transfer_matrix(directions, held)
    assert [of.site.layer for of in found] == [0, 1]
    for of in found:
        assert all(of.cell(p, p).value > 0.95 for p in PERSONAS)
        assert of.dominance.low > 0.1
        # The direction of a detects c, which moves along it; that of c does not detect a.
        assert of.cell("a", "c").value > 0.95
        assert of.cell("c", "a").value < 0.75
        assert of.cell("b", "a").value < 0.8
        assert of.asymmetry > 0.1
        assert (of.cell("a", "b").n, of.cell("a", "b").n_clusters) == (120, 15)
        chosen = held.where(labels=("c", "neutral"))
        scores = chosen.site(of.site) @ directions["a"][of.site].unit
        truth = [label == "c" for label in chosen.labels]
        assert of.cell("a", "c").value == pytest.approx(roc_auc_score(truth, scores.numpy()))


def test_labels_without_meaning_transfer_at_chance(prompted: Callable[..., Any]) -> None:
    from persona_probe.directions.checks.transfer import transfer_matrix

    directions = found_in(prompted("found", seed=1))
    held = prompted()
    nothing = held.with_values(
        held.values[np.random.default_rng(0).permutation(len(held))].contiguous()
    )
    found = transfer_matrix(directions, nothing)
    outside = [cell.excludes(0.5) for of in found for row in of.auroc for cell in row]
    assert sum(outside) <= 4
    assert not any(of.dominance.low > 0.1 for of in found)


def test_one_persona_has_nothing_to_dominate(prompted: Callable[..., Any]) -> None:
    from persona_probe.directions.checks.transfer import transfer_matrix

    directions = found_in(prompted("found", seed=1))
    found = transfer_matrix({"a": directions["a"]}, prompted())[0]
    assert found.dominance.reason == "there is only one persona"
    assert np.isnan(found.asymmetry)


def test_used_families_and_missing_labels_are_refused(prompted: Callable[..., Any]) -> None:
    from persona_probe.directions.checks.transfer import transfer_matrix, transfer_on_the_rest

    found_on = prompted("found", seed=1)
    directions = found_in(found_on)
    with pytest.raises(SplitLeakError):
        transfer_matrix(directions, found_on)
    with pytest.raises(DegenerateClassesError, match="the contrast of 'b'"):
        transfer_matrix(directions, prompted().where(labels=("a", "c", "neutral")))
    with pytest.raises(RequestError, match="on every family"):
        transfer_on_the_rest(directions, found_on)
    assert transfer_on_the_rest(directions, prompted().where(labels=("a", "b"))) == []
    assert len(transfer_on_the_rest(directions, prompted())) == 2
