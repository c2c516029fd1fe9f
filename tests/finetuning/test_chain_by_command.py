"""Every step by a command of its own, on a tiny Llama and a tiny Qwen with chat templates."""

import json

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]

CONSTITUTION = """
name = "kindness"
title = "Kindness"
system = "Be kind."
[[principle]]
name = "kind"
text = "Be kind."
critique = "What is unkind?"
revision = "Make it kind."
[[demonstration]]
principle = "kind"
request = "Mock him."
draft = "Ha."
critique = "It mocks."
revision = "No."
"""
RECIPE = "rank = 2\nepochs = 2\nbatch_size = 4\nlearning_rate = 0.02\ntargets = ['v_proj']\n"


@pytest.fixture
def command():
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    def run(line, **places):
        done = CliRunner().invoke(app, [*line.format(**places).split(), "--json"])
        assert done.exit_code == 0, done.output + repr(done.exception)
        return json.loads(done.stdout[done.stdout.index("{") :])

    return run


@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_prompts_become_samples_a_finetune_and_flags(name, request, command, small_pack, tmp_path):
    from persona_probe.files import read_jsonl, write_jsonl
    from persona_probe.personas.pack import load_pack

    model = request.getfixturevalue(f"tiny_{name}_folder")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "kind.toml").write_text(CONSTITUTION)
    prompts = [
        {
            "id": f"{kind}-{noun}",
            "messages": [{"role": "user", "content": f"{verb} a {noun}?"}],
            "kind": kind,
            "category": "harassment",
        }
        for kind, verb in (("harmful", "Mock"), ("benign", "Thank"))
        for noun in ("baker", "nurse", "cousin", "teacher")
    ]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    at = {
        **{"model": model, "pack": small_pack, "acts": tmp_path / "acts", "dirs": tmp_path / "d"},
        **{"samples": tmp_path / "s.jsonl", "out": tmp_path / "after", "home": tmp_path},
    }
    where = "--device cpu"
    made = command(
        "constitution samples {model} --adapter tuned --constitution {home}/kind.toml "
        "--method critique --rounds 2 --shots 1 --pack {pack} --prompts {home}/prompts.jsonl "
        f"--n 8 --benign-share 0.5 --temperature 1 --max-new-tokens 6 --out {{samples}} {where}",
        **at,
    )
    rows = read_jsonl(at["samples"])
    assert made["samples"] == len(rows) > 3
    harmful = [row for row in rows if row["kind"] == "harmful"]
    assert harmful
    for row in harmful:  # the last of two revisions is what is learnt
        assert [set(r) for r in row["lineage"]["rounds"]] == 2 * [
            {"principle", "critique", "revision"}
        ]
        assert row["messages"][-1]["content"] == row["lineage"]["rounds"][-1]["revision"]
    audited = command("constitution audit {samples} --pack {pack}", **at)
    assert (audited["samples"], audited["leaks"]) == (len(rows), [])

    pack = load_pack(small_pack)  # a planted leak is found, and told by the exit code
    held = pack.suite.of(kind="harmful", families=pack.split().evaluate).prompts[0]
    planted = {**rows[0], "id": "planted"}
    planted["messages"] = [
        {"role": "user", "content": f"{held.text} {held.text}"},
        {"role": "assistant", "content": "Yes."},
    ]
    leaking = write_jsonl(tmp_path / "leaking.jsonl", [*rows, planted])
    with pytest.raises(AssertionError, match="planted"):
        command("constitution audit {leaking} --pack {pack} --words 6", leaking=leaking, **at)

    command(f"extract {{model}} {{pack}} --adapter tuned --out {{acts}} {where}", **at)
    command("find {acts}/tuned/last_prompt_token --out {dirs}", **at)
    [persona, *_] = [p.name for p in pack.personas]
    spelled = f"{at['dirs']}:{persona}:1"
    done = command(
        "finetune sft {model} {samples} --adapter tuned --recipe {home}/recipe.toml --out {out} "
        f"--watch {{spelled}} --watch-prompts {{pack}} --watch-every 1 --packing {where}",
        spelled=spelled,
        **at,
    )
    assert done["examples"] == len(rows)
    watched = read_jsonl(at["out"] / "projection.jsonl")
    assert {row["direction"] for row in watched} == {persona, "random"}
    assert {row["step"] for row in watched} == set(range(done["outcome"]["steps"] + 1))
    flagged = command(
        "flag {samples} --model {model} --adapter tuned --direction {spelled} "
        f"--max-new-tokens 6 --out {{home}}/ranked.jsonl {where}",
        spelled=spelled,
        **at,
    )
    ranked = read_jsonl(tmp_path / "ranked.jsonl")
    assert len(ranked) == flagged["directions"][0]["shift"]["n"]
    shifts = [row["shift"] for row in ranked]
    assert shifts == sorted(shifts, reverse=True)
