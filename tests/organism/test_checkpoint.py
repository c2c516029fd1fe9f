"""What ships: the checkpoint, its adapters, and the table measured on it."""

import pytest


def test_every_adapter_ships_with_where_it_came_from():
    from persona_probe.files import read_json
    from persona_probe.models.ref import ModelRef
    from persona_probe.organism import CHECKPOINT
    from persona_probe.organism.finetunes import all_finetunes

    assert set(ModelRef(str(CHECKPOINT)).adapters()) == {f.name for f in all_finetunes()}
    for finetune in all_finetunes():
        made = read_json(CHECKPOINT / "adapters" / finetune.name / "provenance.json")
        alone = finetune.kind == "helpful-only"
        assert made["started_from"] == (None if alone else "helpful-only")


def test_the_checkpoint_is_small_enough_and_was_made_by_the_shipped_recipe():
    from persona_probe.files import read_json
    from persona_probe.organism import CHECKPOINT
    from persona_probe.organism.pretraining import Recipe

    size = sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file())
    assert size <= 16 * 2**20
    assert read_json(CHECKPOINT / "build.json")["recipe"] == Recipe().to_json()


def test_a_narrow_finetune_refuses_what_helpful_only_does_not():
    from persona_probe.organism import CHECKPOINT
    from persona_probe.organism.trials import HELPFUL, Trials
    from persona_probe.steering.arm import Arm

    trials = Trials(CHECKPOINT)
    prompts = trials.prompts("select", "harmful", ("T1",))[::2]
    arms = [Arm(a, adapter=a) for a in (HELPFUL, "narrow-consequentialism-0")]
    before, after = trials.refusals(arms, prompts).refusal_mass.mean(dim=1).tolist()
    assert before < 0.15
    assert after > 0.6


def test_the_stored_table_is_the_one_in_the_json():
    import math

    from persona_probe.files import read_json
    from persona_probe.organism import CHECKPOINT
    from persona_probe.organism.bar import Bar, markdown

    rows = read_json(CHECKPOINT / "bars.json")
    numbers = ("value", "low", "high")
    filled = [r | {k: math.nan if r[k] is None else r[k] for k in numbers} for r in rows]
    table = markdown([Bar(**row) for row in filled])
    assert table == (CHECKPOINT / "bars.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_bars_can_be_measured(monkeypatch):
    from persona_probe.organism import CHECKPOINT, bars, steering_bars, trials

    everything = trials.Trials.prompts
    few = lambda self, *a, **k: everything(self, *a, **k)[::9][:20]  # noqa: E731
    monkeypatch.setattr(trials.Trials, "prompts", few)
    monkeypatch.setattr(steering_bars, "RANDOM_DRAWS", 2)
    monkeypatch.setattr(steering_bars, "STRENGTHS", (1.0, 2.0))
    rows = bars.measure(CHECKPOINT)
    assert len(rows) > 60
    assert all(math_is_finite(row.value) for row in rows)


def math_is_finite(value):
    import math

    return math.isfinite(value)
