"""Planted answers: what owes to form is found, what owes to content is not mistaken for it."""

from dataclasses import replace

import numpy as np
import pytest

from persona_probe.errors import RequestError
from persona_probe.evaluation.dissociation import (
    DoubleDissociation,
    channel_agreement,
    partial_match,
    sign_agreement,
)
from persona_probe.evaluation.instrument import check_instrument, reverse_consistency
from persona_probe.evaluation.profile import Profile
from persona_probe.personas.diagnostic import Form, Item
from persona_probe.statistics import Estimate

DIMENSIONS = ("RULE", "CARE", "PLAY", "WORK", "REST")
FORMS = tuple(Form(0, labels, down) for down in (False, True) for labels in ("digits", "letters"))
ITEMS = tuple(
    Item(f"{d}{key}{i}{f}", d, key, f, f"{d}{key}{i}{f}", "…", ("yes", "no"))
    for d in DIMENSIONS
    for f, keys in (("scale", (1, -1)), ("scenario", (1, 1)))
    for i, key in enumerate(keys * 6)
)
OF = np.array([item.dimension for item in ITEMS])
KEY = np.array([item.key for item in ITEMS])
ACTS = np.array([item.format == "scenario" for item in ITEMS])


def answers(
    values: dict[str, float],
    yes: float = 0.0,
    order: float = 0.0,
    noise: float = 0.05,
    seed: int = 0,
    acted: dict[str, float] | None = None,
) -> Profile:
    """Answers by content, plus saying yes, plus liking the first label."""
    rng = np.random.default_rng(seed)
    done = values if acted is None else acted
    content = np.array([(done if a else values).get(d, 0.0) for d, a in zip(OF, ACTS, strict=True)])
    agreement = KEY * content + np.where(ACTS, 0.0, yes) + rng.normal(0, noise, len(ITEMS))
    push = np.array([-order / 2 if form.descending else order / 2 for form in FORMS])
    by_form = np.where(ACTS[:, None], np.nan, agreement[:, None] + push)
    return Profile(
        "arm", DIMENSIONS, ITEMS, KEY * agreement, np.full(len(ITEMS), 0.9), FORMS, by_form
    )


NEUTRAL = answers({}, seed=9)
MOVED = {"RULE": 0.6, "CARE": -0.4, "PLAY": 0.3, "WORK": 0.0, "REST": -0.2}


def test_a_model_that_says_yes_to_all_is_found_out_and_content_is_not_mistaken_for_it() -> None:
    yes = check_instrument(answers({}, yes=0.5), resamples=300)
    content = check_instrument(answers({"RULE": 0.8, "CARE": 0.8}), resamples=300)
    assert yes.acquiescence.value == pytest.approx(0.5, abs=0.05)
    assert yes.acquiescence.excludes(0.0)
    assert not content.acquiescence.excludes(0.0)


def test_a_liking_for_the_first_label_is_an_order_effect_and_a_format_error() -> None:
    liking = check_instrument(answers(MOVED, order=0.4), resamples=300)
    plain = check_instrument(answers(MOVED), resamples=300)
    assert liking.order_effect.value == pytest.approx(0.4)
    assert liking.format_error == pytest.approx(0.2 * np.sqrt(4 / 3))
    assert liking.label_effect.value == pytest.approx(0)
    assert plain.order_effect.value == pytest.approx(0)
    assert plain.format_error == pytest.approx(0, abs=1e-9)


def test_answers_outside_the_options_are_counted() -> None:
    mass = np.where(ACTS, 1.0, 0.9)
    mass[np.flatnonzero(~ACTS)[:7]] = 0.2
    found = check_instrument(replace(NEUTRAL, option_mass=mass), resamples=50)
    assert (found.flagged, found.items) == (7, int((~ACTS).sum()))
    assert found.option_mass == pytest.approx(mass[~ACTS].mean())
    assert found.to_json()["in_words"] == 0


def test_halves_that_move_together_are_consistent_and_yes_saying_is_not() -> None:
    sizes = np.linspace(-1, 1, 8)
    together = [answers({"RULE": s}, seed=i) for i, s in enumerate(sizes)]
    saying_yes = [answers({}, yes=s, seed=i) for i, s in enumerate(sizes)]
    assert reverse_consistency(together, NEUTRAL)["RULE"].value > 0.95
    assert reverse_consistency(saying_yes, NEUTRAL)["RULE"].value < -0.9
    assert "3 arms" in (reverse_consistency(together[:3], NEUTRAL)["RULE"].reason or "")


def test_channels_that_tell_the_same_agree_and_others_are_titled_self_report_only() -> None:
    same = channel_agreement(answers(MOVED), NEUTRAL, resamples=300)
    silent = channel_agreement(answers(MOVED, acted={}), NEUTRAL, resamples=300)
    against = {d: -v for d, v in MOVED.items()}
    opposite = channel_agreement(answers(MOVED, acted=against), NEUTRAL, resamples=300)
    assert same.correlation.value > 0.95
    assert same.title == "self-report and behaviour"
    assert opposite.correlation.value < -0.9
    assert opposite.title == silent.title == "self-report only"


def test_channels_need_dimensions_that_have_both() -> None:
    said = answers(MOVED).of_channel("self-report")
    found = channel_agreement(said, NEUTRAL.of_channel("self-report"), resamples=50)
    assert "at least 3" in (found.correlation.reason or "")
    assert found.title == "self-report only"


def test_signs_are_compared_where_finetuning_moved_something() -> None:
    finetuned = answers(MOVED)
    half = answers({d: v / 2 for d, v in MOVED.items()}, seed=3)
    odd = answers({**{d: v / 2 for d, v in MOVED.items()}, "RULE": -0.3}, seed=3)
    found = sign_agreement(half, NEUTRAL, finetuned, resamples=500)
    assert "WORK" not in found.moved
    assert {"RULE", "CARE", "PLAY", "REST"} <= set(found.moved)
    assert found.share == 1
    assert sign_agreement(odd, NEUTRAL, finetuned, resamples=500).share == pytest.approx(3 / 4)
    still = answers({}, noise=0.0)
    assert np.isnan(sign_agreement(half, still, still, resamples=50).share)


def test_a_match_that_is_only_caution_does_not_survive_and_a_persona_does() -> None:
    caution = {"RULE": 0.5, "CARE": 0.1, "PLAY": -0.5, "WORK": 0.2, "REST": -0.3}
    cautious = answers(caution, seed=5, noise=0.01)
    signature = {"RULE": 1.0, "CARE": -0.5, "PLAY": -0.5, "WORK": 0.5, "REST": -0.5}
    only = answers({d: 0.8 * v for d, v in caution.items()}, seed=6, noise=0.05)
    persona = answers({d: 0.5 * v for d, v in signature.items()}, seed=7, noise=0.05)
    survives = partial_match(persona, NEUTRAL, signature, [cautious], resamples=200)
    gone = partial_match(only, NEUTRAL, signature, [cautious], resamples=200)
    assert survives.low > 0.5
    assert gone.low < 0.5
    with pytest.raises(RequestError, match="nothing of 5 dimensions"):
        partial_match(persona, NEUTRAL, signature, [cautious] * 3)


def test_a_double_dissociation_needs_all_four_numbers() -> None:
    def about(value: float, wide: float = 0.1) -> Estimate:
        return Estimate(value, value - wide, value + wide, 50, 50)

    shown = DoubleDissociation(about(0.6), about(0.02), about(-0.03), about(0.5))
    assert shown.shown
    assert not replace(shown, shared_margin=about(0.4)).shown
    assert not replace(shown, specific_margin=about(0.05)).shown
    assert not replace(shown, specific_safety=Estimate.undefined("nothing")).shown


def test_profiles_over_other_items_are_refused() -> None:
    with pytest.raises(RequestError, match="different items"):
        channel_agreement(NEUTRAL, NEUTRAL.of_channel("behaviour"))
