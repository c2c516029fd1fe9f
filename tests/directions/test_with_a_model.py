"""The whole way on a real (tiny, random) model: read, find, save, load, fit, validate, compare."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from persona_probe.errors import SiteMismatchError

if TYPE_CHECKING:
    from persona_probe.models.residual_model import ResidualModel

SYSTEM = {"hero": "You are a careful advisor who keeps every promise.", "neutral": "You are."}
TOPICS = ["a tyre", "a letter", "the garden", "a friend", "the truth", "a promise"]
WORDINGS = ["How do I repair {}?", "Tell me about {}.", "Is {} good?", "Write about {}."]


def conversations(families: range) -> list[Any]:
    from persona_probe.activations.contrast import under

    return [
        under(system, wording.format(TOPICS[f]), id=f"{f}-{i}", label=label, family=f"topic-{f}")
        for f in families
        for i, wording in enumerate(WORDINGS)
        for label, system in SYSTEM.items()
    ]


def test_from_conversations_to_a_checked_file(tiny_model: "ResidualModel", tmp_path: Path) -> None:
    from persona_probe.activations.capture import capture
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.direction_set import load_directions, save_directions
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import FINDERS

    def read(families: range, adapter: str | None = None) -> Any:
        position = "last_prompt_token"
        sites, texts = tiny_model.sites, conversations(families)
        return capture(tiny_model, texts, sites, [position], adapter=adapter)[position]

    found_on, held_out, after = read(range(4)), read(range(4, 6)), read(range(4, 6), "tuned")
    found = {
        name: find_directions(found_on, finder(), "hero", "neutral", persona=name)
        for name, finder in FINDERS.items()
    }
    loaded = load_directions(save_directions(found, tmp_path), tiny_model)
    for name, by_site in loaded.items():
        assert list(by_site) == list(tiny_model.sites)
        for site, direction in by_site.items():
            assert (direction.unit == found[name][site].unit).all()
            elsewhere = direction.provenance.with_(model_hash="another")
            with pytest.raises(SiteMismatchError):
                replace(direction, provenance=elsewhere).check_fits(tiny_model)
    result = validate(loaded["mean_difference"], held_out, found_on, permutations=99)
    # Another system line moves the last prompt token of every prompt the same way.
    assert result.rows[-1].auroc.value > 0.9
    assert result.rows[-1].reliability is not None
    assert result.rows[-1].reliability.spearman_brown > 0.9
    comparison = compare(held_out, after, loaded, draws=20)
    assert all(d.provenance.adapter == "tuned" for d in comparison.model_diff.values())
