"""Telling two models apart on the same tokens, where no baseline that reads text can."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from persona_probe.errors import RequestError, SiteMismatchError
from tests.directions.moved import activations, direction


def pair(size: float) -> tuple[Any, Any]:
    """20 families of 4; the finetune moves all along the first axis."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 1, 8))
    texts = tuple(f"words of {i}" for i in range(80))
    before, after = (
        replace(activations(values), texts=texts)
        for values in (x, x + size * np.eye(8)[0] + 0.1 * rng.normal(size=x.shape))
    )
    return before, after


def directions() -> dict[str, Any]:
    along, across = direction(np.eye(8)[0]), direction(np.eye(8)[1], persona="other")
    return {"one": {along.site: along}, "other": {across.site: across}}


def test_the_direction_along_which_it_moved_tells_them_apart_and_no_other() -> None:
    from persona_probe.directions.before_after.same_tokens import validate_on_same_tokens

    few = {"permutations": 99, "relabellings": 19}
    one, other = validate_on_same_tokens(directions(), *pair(3.0), **few)
    assert one.rows[0].auroc.low > 0.9
    assert one.rows[0].p == pytest.approx(0.01)
    assert one.rows[0].auroc.n == 160
    assert other.rows[0].auroc.low < 0.5 < other.rows[0].auroc.high
    assert other.rows[0].p > 0.05
    nothing, _ = validate_on_same_tokens(directions(), *pair(0.0), **few)
    assert nothing.rows[0].auroc.value == pytest.approx(0.5, abs=0.05)


def test_families_that_found_the_direction_are_left_out() -> None:
    from persona_probe.directions.before_after.same_tokens import validate_on_same_tokens

    before, after = pair(3.0)
    [known] = directions()["one"].values()
    used = replace(known, families_used=frozenset(f"held-{i}" for i in range(5)))
    [found] = validate_on_same_tokens({"one": {used.site: used}}, before, after, permutations=9)
    assert (found.rows[0].auroc.n, found.rows[0].auroc.n_clusters) == (120, 15)
    everything = replace(known, families_used=frozenset(before.families))
    with pytest.raises(RequestError, match="found on every family"):
        validate_on_same_tokens({"one": {everything.site: everything}}, before, after)
    elsewhere = direction(np.eye(8)[0], site=5)
    with pytest.raises(RequestError, match="none of its sites"):
        validate_on_same_tokens({"one": {elsewhere.site: elsewhere}}, before, after)
    with pytest.raises(RequestError, match="different examples"):
        validate_on_same_tokens(directions(), before, after.take(range(40)))
    stranger = activations(before.values.numpy(), model_hash="another")
    strange = replace(stranger, texts=before.texts)
    with pytest.raises(SiteMismatchError):
        validate_on_same_tokens(directions(), strange, strange)
