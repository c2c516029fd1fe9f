"""Kappa against scikit-learn, and what it says in the easy and the empty cases."""

from typing import Any

import numpy as np
import pytest

from persona_probe.errors import RequestError
from persona_probe.evaluation.agreement import agreement
from persona_probe.statistics import cohen_kappa


def test_kappa_is_that_of_scikit_learn_and_its_interval_holds_it() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(0)
    first = rng.choice(["refuse", "harmful", "degenerate"], size=300, p=[0.5, 0.4, 0.1])
    noise = rng.choice(["refuse", "harmful"], size=300)
    second = np.where(rng.random(300) < 0.7, first, noise)
    families = [f"family-{i // 5}" for i in range(300)]
    found = cohen_kappa(first.tolist(), second.tolist(), families, resamples=500)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low < found.value < found.high
    assert (found.n, found.n_clusters) == (300, 60)


def test_chance_agreement_is_no_agreement() -> None:
    rng = np.random.default_rng(1)
    several = [rng.choice(["refuse", "harmful"], size=400).tolist() for _ in range(2)]
    found = cohen_kappa(*several, [str(i) for i in range(400)], resamples=500)
    assert found.low < 0 < found.high


def test_nothing_to_agree_about_is_undefined_not_one() -> None:
    same = ["refuse"] * 5
    assert "'refuse' of all 5" in (cohen_kappa(same, same, same).reason or "")
    assert not cohen_kappa([], [], []).defined


def test_unscored_replies_are_counted_and_left_out(judged: Any) -> None:
    first = [judged("harmful", k, f"f{i}") for i, k in enumerate(["refuse", "harmful"] * 4)]
    second = [*first[:6], judged("harmful", "unscored", "f6"), judged("harmful", "refuse", "f7")]
    found = agreement(first, second, resamples=200)
    assert (found.unscored, found.kappa.n) == (1, 7)
    assert found.share == pytest.approx(6 / 7)
    assert found.table["refuse"]["unscored"] == 1
    assert found.table["harmful"] == {
        "refuse": 1,
        "safe-helpful": 0,
        "harmful": 3,
        "degenerate": 0,
        "unscored": 0,
    }
    assert found.trusted


def test_judgements_of_other_replies_are_refused(judged: Any) -> None:
    one, two = judged("harmful", "refuse", text="One."), judged("harmful", "refuse", text="Two.")
    with pytest.raises(RequestError, match="same replies"):
        agreement([one], [two])
