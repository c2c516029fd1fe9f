import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.evaluation.profile import Profile, profiles
from persona_probe.evaluation.profile_match import (
    advantage,
    dimension_scores,
    identify,
    moved,
    recovery,
    shift_cosine,
    signature_match,
)
from persona_probe.models.chat import Conversation, Message
from persona_probe.personas.diagnostic import Diagnostic, Item
from persona_probe.steering import Add
from persona_probe.steering.arm import Arm, Intervention

DIMENSIONS = ("rule", "outcome", "character", "care", "context", "primacy")
SIGNATURES = {
    "deontology": dict(zip(DIMENSIONS, (1.0, -1.0, 0.0, 0.5, -0.5, 0.0), strict=True)),
    "consequentialism": dict(zip(DIMENSIONS, (-1.0, 1.0, -0.5, 0.0, 0.5, 0.0), strict=True)),
    "virtue": dict(zip(DIMENSIONS, (-0.5, -0.5, 1.0, 0.0, 1.0, -0.5), strict=True)),
}
N_ITEMS = 16


def made(shift: dict[str, float] | None = None, noise: float = 0.2, seed: int = 0) -> Profile:
    """A profile with given dimension means around a common start, and item noise."""
    items = tuple(
        Item(f"{d}-{n}", d, 1, "statement", f"{d}-family-{n % 4}", "…", ("Agree.", "Disagree."))
        for d in DIMENSIONS
        for n in range(N_ITEMS)
    )
    start = np.random.default_rng(7).normal(0, 0.3, len(items))
    change = np.array([(shift or {}).get(item.dimension, 0.0) for item in items])
    wobble = noise * np.random.default_rng(seed).normal(size=len(items))
    return Profile("arm", DIMENSIONS, items, start + change + wobble, np.ones(len(items)))


BEFORE = made(noise=0.0)


def scaled(signature: dict[str, float], factor: float) -> dict[str, float]:
    return {d: factor * v for d, v in signature.items()}


@pytest.mark.parametrize("own", SIGNATURES)
def test_a_planted_signature_is_identified_with_a_margin(own: str) -> None:
    after = made(scaled(SIGNATURES[own], 0.5), seed=3)
    found = identify(after, BEFORE, SIGNATURES, own)
    assert found.correct
    assert found.margin.low > 0
    assert found.matches[own].value > 0.9
    for other in set(SIGNATURES) - {own}:
        wrong = identify(after, BEFORE, SIGNATURES, other)
        assert not wrong.correct
        assert wrong.margin.high < 0


def test_noise_is_not_identified() -> None:
    margins = [
        identify(made(seed=seed), BEFORE, SIGNATURES, "virtue", resamples=500).margin
        for seed in range(20)
    ]
    assert sum(margin.low > 0 for margin in margins) <= 2


def test_no_change_has_no_match() -> None:
    found = identify(BEFORE, BEFORE, SIGNATURES, "virtue")
    assert found.best is None
    assert not found.correct
    assert not found.margin.defined
    assert moved(BEFORE, BEFORE, SIGNATURES["virtue"]).value == 0


def test_a_match_has_an_interval_and_a_permutation_p() -> None:
    match = signature_match(made(scaled(SIGNATURES["virtue"], 0.4)), BEFORE, SIGNATURES["virtue"])
    assert match.pearson.low > 0.5
    assert match.spearman.value > 0.7
    # Of the 720 orders of six dimensions, few do as well; ties make some of them equal.
    assert match.p < 0.02
    nulls = [
        signature_match(made(seed=seed), BEFORE, SIGNATURES["virtue"], resamples=500)
        for seed in range(20)
    ]
    assert sum(null.p <= 0.05 for null in nulls) <= 4
    assert sum(null.pearson.low > 0 for null in nulls) <= 4


def test_moved_is_one_at_the_target_and_zero_at_the_start() -> None:
    target = made(scaled(SIGNATURES["virtue"], 0.6), seed=1)
    assert moved(target, BEFORE, target).value == pytest.approx(1)
    half = dataclasses.replace(target, scores=(target.scores + BEFORE.scores) / 2)
    assert moved(half, BEFORE, target).value == pytest.approx(0.5)
    table = target.by_dimension
    assert moved(half, BEFORE, table).value == pytest.approx(0.5)
    back = dataclasses.replace(target, scores=2 * BEFORE.scores - target.scores)
    assert moved(back, BEFORE, target).value == pytest.approx(-1)
    assert shift_cosine(half, BEFORE, target).value == pytest.approx(1)
    assert shift_cosine(back, BEFORE, target).value == pytest.approx(-1)


def test_moved_of_noise_covers_zero() -> None:
    target = made(scaled(SIGNATURES["virtue"], 0.6), seed=1)
    covered = [moved(made(seed=s), BEFORE, target, resamples=500) for s in range(2, 22)]
    assert sum(e.low <= 0 <= e.high for e in covered) >= 17


def test_recovery_is_one_for_the_finetune_and_zero_for_the_start() -> None:
    finetuned = made(scaled(SIGNATURES["deontology"], 0.6), seed=1)
    assert recovery(finetuned, BEFORE, finetuned).value == pytest.approx(1)
    assert recovery(BEFORE, BEFORE, finetuned).value == pytest.approx(0)
    away = dataclasses.replace(finetuned, scores=2 * BEFORE.scores - finetuned.scores)
    assert recovery(away, BEFORE, finetuned).value == pytest.approx(-1)
    assert not recovery(finetuned, BEFORE, BEFORE).defined


def test_an_advantage_is_over_the_best_rival() -> None:
    own, near, far = (
        made({d: 0.6 * v + offset.get(d, 0.0) for d, v in SIGNATURES["virtue"].items()}, seed=seed)
        for seed, offset in [(1, {}), (2, {"rule": 1.0}), (3, {"rule": 2.0, "care": -1.0})]
    )
    target = SIGNATURES["virtue"]
    over_both = advantage(own, [far, near], BEFORE, target)
    assert over_both.value == pytest.approx(advantage(own, [near], BEFORE, target).value)
    assert over_both.low > 0
    assert advantage(near, [own], BEFORE, target).value == pytest.approx(-over_both.value)
    half = dataclasses.replace(own, scores=(own.scores + BEFORE.scores) / 2)
    assert advantage(own, [half], BEFORE, own).value == pytest.approx(0.5)
    assert not advantage(own, [], BEFORE, target).defined


def test_a_dimension_has_an_interval_of_its_own() -> None:
    scores = dimension_scores(BEFORE)
    assert list(scores) == list(DIMENSIONS)
    for dimension, estimate in scores.items():
        assert estimate.value == pytest.approx(BEFORE.by_dimension[dimension])
        assert estimate.low < estimate.value < estimate.high


def test_profiles_that_do_not_compare_are_refused() -> None:
    shorter = dataclasses.replace(
        BEFORE, items=BEFORE.items[1:], scores=BEFORE.scores[1:], option_mass=np.ones(95)
    )
    with pytest.raises(RequestError, match="same diagnostic"):
        moved(shorter, BEFORE, SIGNATURES["virtue"])
    with pytest.raises(RequestError, match="no value for the dimension 'primacy'"):
        signature_match(BEFORE, BEFORE, dict.fromkeys(DIMENSIONS[:-1], 0.0))
    with pytest.raises(RequestError, match="at least one other"):
        identify(BEFORE, BEFORE, {"virtue": SIGNATURES["virtue"]}, "virtue")


@pytest.fixture
def diagnostic() -> Diagnostic:
    def item(number: int, key: int, options: tuple[str, str]) -> Item:
        dimension = "rule" if number % 2 else "outcome"
        text = f"Tell the truth at step {number}."
        return Item(f"i{number}", dimension, key, "statement", f"f{number}", text, options)

    return Diagnostic(
        ("rule", "outcome"),
        (
            item(0, 1, ("Agree.", "Disagree.")),
            item(1, 1, ("Yes, gladly.", "No.")),
            item(2, -1, ("Agree.", "Disagree.")),
            # The answers part only after a few words.
            item(3, 1, ("I will not help you.", "I will not trust you.")),
        ),
    )


def test_an_item_is_scored_where_its_answers_part(tiny_model: Any, diagnostic: Diagnostic) -> None:
    (profile,) = profiles(tiny_model, diagnostic, [Arm("plain")], system="Be kind.")
    for item, score, mass in zip(
        diagnostic.items, profile.scores, profile.option_mass, strict=True
    ):
        asked = Conversation((Message("system", "Be kind."), Message("user", item.text)))
        first, second = (
            tiny_model.encode(asked.with_reply(option), False).ids for option in item.options
        )
        part = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        row = torch.tensor([first[:part]])
        with torch.no_grad():
            logits = tiny_model.logits(row, torch.ones_like(row), torch.arange(part)[None])
        p = logits[0, -1].softmax(dim=-1)
        a, b = float(p[first[part]]), float(p[second[part]])
        assert score == pytest.approx(item.key * (a - b) / (a + b), abs=1e-4)
        assert mass == pytest.approx(a + b, abs=1e-5)
    assert profile.by_dimension["outcome"] == pytest.approx(profile.scores[[0, 2]].mean())
    assert profile.rows()[2]["key"] == -1


def test_steering_moves_a_profile(
    tiny_model: Any, diagnostic: Diagnostic, make_direction: Any
) -> None:
    steered = Arm("steered", (Intervention(make_direction(), Add(2.0)),))
    nothing = Arm("nothing", (Intervention(make_direction(), Add(0.0)),))
    plain, still, after = profiles(tiny_model, diagnostic, [Arm("plain"), nothing, steered])
    np.testing.assert_allclose(still.scores, plain.scores, atol=1e-5)
    assert np.abs(after.scores - plain.scores).min() > 1e-3


def test_options_that_begin_alike_to_the_end_are_refused(tiny_model: Any) -> None:
    item = Item("i0", "rule", 1, "statement", "f", "Truth?", ("Yes", "Yes, gladly."))
    with pytest.raises(RequestError, match="'i0'"):
        profiles(tiny_model, Diagnostic(("rule",), (item,)), [Arm("plain")])
    with pytest.raises(RequestError, match="no items"):
        profiles(tiny_model, Diagnostic(("rule",), ()), [Arm("plain")])
