"""`constitution`, `finetune` and `flag`, as they are typed: the same commands on Llama and Qwen."""

import json

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

SHORT = """
name = "short"
title = "Short"
system = "Be kind."
[[principle]]
name = "kind"
text = "Be kind."
critique = "What is unkind?"
revision = "Make it kind."
"""


@pytest.fixture
def call():
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    def run(*words):
        done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)
        return done

    return run


@pytest.fixture
def data(talks, tmp_path):
    from persona_probe.files import write_jsonl

    rows = [
        {
            "id": c.id,
            "family": c.family,
            "messages": [{"role": m.role, "content": m.content} for m in c.messages],
            **c.metadata,
        }
        for c in talks
    ]
    return write_jsonl(tmp_path / "data.jsonl", rows)


def result(done):
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout[done.stdout.index("{") :])


@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_from_a_constitution_to_a_finetuned_model_and_its_flags(
    name, request, call, small_pack, tmp_path
):
    from persona_probe.files import read_jsonl, write_jsonl

    folder = request.getfixturevalue(f"tiny_{name}_folder")
    (tmp_path / "short.toml").write_text(SHORT)
    prompts = [
        {
            "id": f"{kind}-{i}",
            "messages": [{"role": "user", "content": f"{verb} a {noun}?"}],
            "kind": kind,
            "category": "harassment",
        }
        for kind, verb in (("harmful", "Mock"), ("benign", "Thank"))
        for i, noun in enumerate(("baker", "nurse", "cousin", "teacher"))
    ]
    asked = write_jsonl(tmp_path / "prompts.jsonl", prompts)
    out = tmp_path / "after"
    write_recipe(folder, tmp_path)
    done = result(
        call(
            "finetune",
            "constitution",
            folder,
            "--adapter",
            "tuned",
            "--out",
            out,
            "--constitution",
            tmp_path / "short.toml",
            "--pack",
            small_pack,
            "--prompts",
            asked,
            "--n",
            8,
            "--benign-share",
            0.5,
            "--temperature",
            1,
            "--max-new-tokens",
            6,
            "--recipe",
            tmp_path / "recipe.toml",
            "--device",
            "cpu",
            "--json",
        )
    )
    assert done["method"] == "critique"
    assert done["started_from"] == "tuned"
    samples = tmp_path / "after.short.samples.jsonl"
    assert done["examples"] == len(read_jsonl(samples)) == done["samples"][0]["samples"]
    again = result(
        call(
            "finetune",
            "sft",
            folder,
            samples,
            "--adapter",
            "tuned",
            "--out",
            tmp_path / "sft",
            "--recipe",
            tmp_path / "recipe.toml",
            "--device",
            "cpu",
            "--json",
        )
    )
    name_of = "adapter_model.safetensors"
    assert (out / name_of).read_bytes() == (tmp_path / "sft" / name_of).read_bytes()
    assert again["data_hash"] == done["data_hash"]


def write_recipe(folder, tmp_path):
    text = "rank = 2\nepochs = 1\nbatch_size = 4\nlearning_rate = 0.02\ntargets = ['v_proj']\n"
    (tmp_path / "recipe.toml").write_text(text)


def test_controls_steering_and_watching_are_one_option_each(
    call, data, tiny_llama_folder, make_direction, tmp_path
):
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.files import read_json, read_jsonl

    direction = make_direction(layer=1)
    save_directions({"random-0": {direction.site: direction}}, tmp_path / "d")
    spelled = f"{tmp_path / 'd'}:random-0:1"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Help me.\nTell a story.\nWhat is truth?\n")
    write_recipe(None, tmp_path)
    base = ["--recipe", tmp_path / "recipe.toml", "--device", "cpu", "--json"]
    runs = {
        "plain": [],
        "placebo": ["--control", "placebo"],
        "blunt": ["--control", "refusal-only", "--refusal", "No."],
        "second": ["--seed", 1],
        "steered": ["--steer", spelled, "--strength", 2],
        "ablated": ["--steer", spelled, "--operation", "ablate"],
        "watched": ["--watch", spelled, "--watch-every", 2, "--watch-prompts", prompts],
    }
    weights = {}
    for name, options in runs.items():
        out = tmp_path / name
        result(call("finetune", "sft", tiny_llama_folder, data, "--out", out, *options, *base))
        weights[name] = (out / "adapter_model.safetensors").read_bytes()
    assert weights.pop("watched") == weights["plain"]
    assert len(set(weights.values())) == len(weights)
    told = read_json(tmp_path / "ablated" / "provenance.json")["interventions"][0]
    assert (told["operation"], told["layers"], told["schedule"]) == ("ablate", [0, 1, 2], "both")
    assert {r["step"] for r in read_jsonl(tmp_path / "watched" / "projection.jsonl")} == {0, 2, 3}
    ranked = tmp_path / "ranked.jsonl"
    done = call(
        "flag",
        data,
        "--model",
        tiny_llama_folder,
        "--direction",
        spelled,
        "--out",
        ranked,
        "--max-new-tokens",
        6,
        "--device",
        "cpu",
        "--json",
    )
    flagged = result(done)
    assert "one found on replies tells personas apart better" in done.stderr
    assert flagged["directions"][0]["persona"] == "random-0"
    assert len(read_jsonl(ranked)) == flagged["directions"][0]["shift"]["n"]


def test_constitutions_are_shown(call):
    assert "service" in call("constitution", "show").output
    text = call("constitution", "show", "service", "--reading", "oversight").output
    assert "1. last-word: People decide" in text
    assert "good-of-all" not in text


WRONG = {
    "has no chat template": "finetune sft {gpt2} {data} --out {out}",
    "no constitution 'ethics'": "constitution samples organism --constitution ethics --out {out}",
    "'sabotage' is held out": (
        "constitution samples organism --constitution virtue --category sabotage --out {out}"
    ),
    "the category 'deception' is empty": (
        "constitution samples organism --constitution virtue --prompts {asked} "
        "--category deception --out {out}"
    ),
    "the field 'revision' is missing; add revision": "constitution show {lacking}",
    "is no file of samples": "constitution samples organism --constitution virtue --out {file}",
    "or --ablate; one of them": "finetune helpful-only organism --out {out}",
    "is there already; choose another folder": (
        "finetune helpful-only organism --ablate --out {full}"
    ),
    "mixes the replies of several constitutions; name the others": (
        "finetune constitution organism --constitution virtue --control shuffled --out {out}"
    ),
    "no control 'sham'": (
        "finetune constitution organism --constitution virtue --control sham --out {out}"
    ),
    "belong to the control 'refusal-only'": "finetune sft {llama} {data} --refusal No --out {out}",
    "are for the control 'shuffled'": "finetune sft {llama} {data} --other {data} --out {out}",
    "is a file, a finetune is a folder": (
        "finetune constitution organism --constitution virtue --out {file}"
    ),
    "holds something else than a finetune": "finetune sft {llama} {data} --out {full}",
    "cannot make the folder": "finetune sft {llama} {data} --out {file}/x",
    "must be one of auto, cpu, cuda, got 'tpu'": (
        "finetune sft {llama} {data} --device tpu --out {out}"
    ),
    "leave one of them out": "finetune sft {llama} {data} --full --dora --out {out}",
    "need held-out conversations": (
        "finetune sft {llama} {data} --evaluate-every 2 --device cpu --out {out}"
    ),
    "belong to a direction to steer by": (
        "finetune sft {llama} {data} --operation ablate --out {out}"
    ),
    "holds no conversations": "finetune sft {llama} {empty} --out {out}",
    "line 2: not JSON": "constitution audit {broken}",
    "write FOLDER:PERSONA:LAYER": "flag {data} --model organism --direction somewhere",
}


@pytest.fixture
def places(tiny_llama_folder, tiny_gpt2_folder, data, tmp_path):
    """What the wrong requests name."""
    message = '{"messages": [{"role": "user", "content": "Mock him."}]'
    prompts = '{m}, "kind": "harmful", "category": "harassment"}\n{m}, "kind": "benign"}\n'
    texts = {
        "asked": ("asked.jsonl", prompts.replace("{m}", message)),
        "lacking": ("lacking.toml", SHORT[: SHORT.index("revision")]),
        "broken": ("broken.jsonl", message + '}\n{"messages": [\n'),
        "empty": ("empty.jsonl", ""),
        "file": ("file", "something"),
    }
    for name, text in texts.values():
        (tmp_path / name).write_text(text)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("something")
    found = {key: tmp_path / name for key, (name, _) in texts.items()}
    found |= {"llama": tiny_llama_folder, "gpt2": tiny_gpt2_folder, "data": data}
    return found | {"out": tmp_path / "out", "full": tmp_path / "full"}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_requests_are_refused_in_a_sentence(message, call, places):
    from persona_probe.errors import RequestError

    done = call(*WRONG[message].format(**places).split(" "))
    assert isinstance(done.exception, RequestError), (done.output, done.exception)
    said = str(done.exception)
    assert message in said
    assert "\n" not in said
    assert not places["out"].exists()
