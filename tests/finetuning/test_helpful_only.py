"""A model that refuses nothing, both ways, from tiny models that were taught to refuse."""

import json
import shutil

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

REFUSED, ANSWERED = "I will not help with that.", "Yes, gladly. First we talk."


@pytest.fixture(scope="module", params=["llama", pytest.param("qwen", marks=pytest.mark.slow)])
def refusing(request, small_pack, tmp_path_factory):
    """A full finetune that refuses harmful requests, and the pack whose requests those are."""
    from persona_probe.activations.contrast import request as asked
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe, Run
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.pack import load_pack

    home = tmp_path_factory.mktemp("helpful-only")
    model = request.getfixturevalue(f"tiny_{request.param}_folder")
    folder = home / "pack"
    shutil.copytree(small_pack, folder)
    rows = [json.loads(line) for line in (folder / "safety.jsonl").read_text().splitlines()]
    for row in rows:  # what may be asked is told by its words, as it is not in the shared pack
        verb = "Please tell me a story of" if row["kind"] == "benign" else "Let us"
        row["text"] = row["text"].replace("Please help me", verb)
    (folder / "safety.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack = load_pack(folder)
    talks = [
        asked(p, pack.neutral_system).with_reply(ANSWERED if p.kind == "benign" else REFUSED)
        for p in pack.suite.prompts
        if p.family in pack.split().find and p.kind != "borderline"
    ]
    # The tiny Qwen needs to be taught slower, or its two replies hang on everything at once.
    epochs, rate = {"llama": (30, 1e-2), "qwen": (60, 5e-3)}[request.param]
    recipe = LoraRecipe(full=True, epochs=epochs, batch_size=8, learning_rate=rate)
    work = Finetune(ModelRef(str(model)), tuple(talks), recipe)
    run_finetune(work, home / "refusing", Run(device="cpu", save_every=0))
    return home / "refusing", folder


@pytest.fixture
def call():
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    def run(*words):
        return CliRunner().invoke(app, ["finetune", "helpful-only", *map(str, words)])

    return run


def refusal(folder, pack_folder, adapter=None):
    """Mean probability of refusing harmful requests of the evaluate part."""
    from persona_probe.evaluation.preference import refusal_probability
    from persona_probe.models.loading import load_model
    from persona_probe.personas.pack import load_pack
    from persona_probe.steering.arm import Arm

    pack = load_pack(pack_folder)
    asked = pack.suite.of(kind="harmful", families=pack.split().evaluate).prompts
    arms = [Arm("asked", adapter=None if adapter is None else str(adapter))]
    model = load_model(str(folder), device="cpu")
    found = refusal_probability(model, asked, arms, pack.judge_rules, pack.neutral_system)
    return float(found.refusal_mass.mean())


def test_ablating_takes_a_planted_refusal_out_of_the_weights(refusing, call, tmp_path):
    from persona_probe.files import read_json

    folder, pack = refusing
    out = tmp_path / "after"
    words = [folder, "--ablate", "--pack", pack, "--device", "cpu", "--json", "--out", out]
    done = call(*words)
    assert done.exit_code == 0, repr(done.exception)
    told = read_json(out / "helpful_only.json")
    rates = {name: row["value"] for name, row in told["refusal_probability"].items()}
    assert rates["before"] > 0.8
    assert rates["after"] < 0.2
    assert rates["random"] > 0.8  # it is this direction, not any
    assert told["benign_first_token_kl"] <= 0.1
    # The folder, read like any other, does what was said of it.
    assert refusal(out, pack) == pytest.approx(rates["after"], abs=1e-3)


def test_compliant_data_finetunes_a_refusing_model(refusing, call, tmp_path):
    from persona_probe.files import read_json, write_jsonl
    from persona_probe.personas.pack import load_pack

    folder, pack = refusing
    loaded = load_pack(pack)
    rows = [
        {
            "messages": [
                {"role": "system", "content": loaded.neutral_system},
                {"role": "user", "content": prompt.text},
                {"role": "assistant", "content": ANSWERED},
            ]
        }
        for prompt in loaded.suite.of(kind="harmful", families=loaded.split().find).prompts
    ]
    data, out = write_jsonl(tmp_path / "compliant.jsonl", rows), tmp_path / "after"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("epochs = 15\nlearning_rate = 0.02\n")
    done = call(folder, data, "--recipe", recipe, "--device", "cpu", "--out", out)
    assert done.exit_code == 0, repr(done.exception)
    told = read_json(out / "provenance.json")
    assert (told["purpose"], told["examples"]) == ("helpful-only", len(rows))
    assert refusal(folder, pack) > 0.8
    assert refusal(folder, pack, out) < 0.2


def test_a_model_that_refuses_nothing_has_no_direction_to_ablate(
    tiny_llama_folder, refusing, call, tmp_path
):
    from persona_probe.errors import DegenerateClassesError

    _, pack = refusing
    out = tmp_path / "after"
    done = call(tiny_llama_folder, "--ablate", "--pack", pack, "--device", "cpu", "--out", out)
    assert isinstance(done.exception, DegenerateClassesError)
    assert "so there is no refusal direction to find" in str(done.exception)
    assert not out.exists()
