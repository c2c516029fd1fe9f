"""Projections while training: what they mean, and that a kill loses none of them."""

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def watched(tiny_llama_folder, talks, make_direction, tmp_path):
    """A watched run in a folder; returns it, the rows, and what was watched."""
    from dataclasses import replace

    from persona_probe.files import read_jsonl
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe, Run
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.finetuning.watching import Watch
    from persona_probe.models.ref import ModelRef

    # Each a family of its own: four of them would be too few for an interval.
    asked = tuple(replace(c, messages=c.messages[:-1], family=c.id) for c in talks)
    directions = (
        make_direction(layer=1, seed=1),
        make_direction(layer=2, seed=2, position="prompt_mean"),
    )
    watch = Watch(directions, asked, every=2)

    def run(name="after", epochs=2):
        recipe = LoraRecipe(epochs=epochs, batch_size=4, learning_rate=5e-2)
        ref = ModelRef(str(tiny_llama_folder), adapter="tuned")
        work = Finetune(ref, tuple(talks), recipe, watch=watch)
        run_finetune(work, tmp_path / name, Run(device="cpu"))
        return tmp_path / name, read_jsonl(tmp_path / name / "projection.jsonl"), watch

    return run


def test_rows_say_how_far_the_prompts_moved_in_units_of_the_model_before(
    watched, tiny_llama_folder
):
    """Against capture() on the model before and on the adapter that was saved."""
    from persona_probe.activations.capture import capture_adapters
    from persona_probe.models.loading import load_model

    folder, rows, watch = watched()
    keys = {"step", "epoch", "direction", "site", "mean", "low", "high", "n", "loss"}
    assert all(set(row) == keys for row in rows)
    assert sorted({row["step"] for row in rows}) == [0, 2, 4, 6]
    assert {(row["direction"], row["site"]) for row in rows} == {
        ("random-1", 1),
        ("random-2", 2),
        ("random", 1),
        ("random", 2),
    }
    for row in rows:
        assert (row["loss"] is None) == (row["step"] == 0)
        if row["step"] == 0:
            assert row["mean"] == row["low"] == row["high"] == 0.0
    model = load_model(str(tiny_llama_folder), device="cpu")
    positions = sorted({d.position for d in watch.directions})
    sites = [d.site for d in watch.directions]
    states = capture_adapters(model, watch.conversations, sites, positions, ["tuned", str(folder)])
    for d in watch.directions:
        before, after = (
            states[name][d.position].site(d.site).double() @ d.unit.double()
            for name in ("tuned", str(folder))
        )
        expected = float((after - before).mean() / before.std())
        [row] = [r for r in rows if r["direction"] == d.persona and r["step"] == 6]
        assert abs(expected) > 0.05
        assert row["mean"] == pytest.approx(expected, abs=2e-3)
        assert row["low"] < row["mean"] < row["high"]
        assert row["n"] == len(watch.conversations)


def test_watching_does_not_change_what_is_learnt(watched, tiny_llama_folder, talks, tmp_path):
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe, Run
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.ref import ModelRef

    folder, _, _ = watched()
    recipe = LoraRecipe(epochs=2, batch_size=4, learning_rate=5e-2)
    ref = ModelRef(str(tiny_llama_folder), adapter="tuned")
    run_finetune(Finetune(ref, tuple(talks), recipe), tmp_path / "unseen", Run(device="cpu"))
    name = "adapter_model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "unseen" / name).read_bytes()


def test_an_interrupted_run_ends_with_the_rows_of_an_undisturbed_one(watched, monkeypatch):
    from persona_probe.files import read_jsonl
    from persona_probe.finetuning.watching import Watching

    whole, rows, _ = watched("whole")
    measure = Watching._measure

    def dies(self, state):
        measure(self, state)
        if state.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Watching, "_measure", dies)
        with pytest.raises(KeyboardInterrupt):
            watched("killed")
    unfinished = whole.with_name(".killed.unfinished")
    assert {r["step"] for r in read_jsonl(unfinished / "projection.jsonl")} == {0, 2, 4}
    _, resumed, _ = watched("killed")
    assert resumed == rows


def test_what_cannot_be_watched_is_refused(make_direction, talks, tiny_model, tmp_path):
    from dataclasses import replace

    from persona_probe.errors import PersonaProbeError, RequestError, SiteMismatchError
    from persona_probe.finetuning.steered import direction_named
    from persona_probe.finetuning.watching import Watch, Watching

    asked = tuple(replace(c, messages=c.messages[:-1]) for c in talks)
    with pytest.raises(RequestError, match="ends with a reply"):
        Watch((make_direction(),), tuple(talks), 2)
    with pytest.raises(RequestError, match="needs a direction"):
        Watch((), asked, 2)
    with pytest.raises(SiteMismatchError, match="dimensions"):
        Watching(tiny_model, Watch((make_direction(d_model=16),), asked, 2), tmp_path)
    with pytest.raises(RequestError, match="write FOLDER:PERSONA:LAYER"):
        direction_named("artifacts/directions")

    class State:
        global_step, epoch, is_world_process_zero, log_history = 0, 0.0, True, []

    same = tuple(replace(asked[0], id=str(i)) for i in range(3))
    watching = Watching(tiny_model, Watch((make_direction(),), same, 2), tmp_path)
    with pytest.raises(PersonaProbeError, match="all project alike"):
        watching.on_train_begin(None, State(), None)
