"""Plans: found by the names of adapters, or named one by one; never guessed."""

from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.study.planning import name_models, plan_study

PERSONAS = ("deontology", "virtue")


def adapters(folder: Path, *names: str) -> str:
    for name in names:
        (folder / "adapters" / name).mkdir(parents=True)
        (folder / "adapters" / name / "adapter_config.json").write_text("{}")
    return str(folder)


def test_adapters_are_recognised_by_name_with_their_seeds(tmp_path: Path) -> None:
    names = ["helpful-only", "narrow-virtue-0", "narrow-virtue-1", "broad-virtue-0"]
    model = adapters(tmp_path, *names, "placebo-0", "refusal-only-0", "narrow-stoicism-0")
    study = plan_study(model, "organism", PERSONAS)
    assert study.helpful_only == "helpful-only"
    assert study.personas == ("virtue",)
    assert study.seeds("virtue") == ("narrow-virtue-0", "narrow-virtue-1")
    assert study.finetuned["virtue"]["broad"] == ("broad-virtue-0",)
    assert study.controls == {"placebo": ("placebo-0",), "refusal-only": ("refusal-only-0",)}


def test_a_folder_without_finetunes_is_refused_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"found: lonely.*name adapters after"):
        plan_study(adapters(tmp_path, "lonely"), "organism", PERSONAS)


def test_named_finetunes_of_one_persona_are_its_seeds() -> None:
    study = name_models(
        "m", "p", PERSONAS, None, ["virtue=a", "deontology=b", "virtue=c"], ["placebo=d"]
    )
    assert study.personas == PERSONAS
    assert study.seeds("virtue") == ("a", "c")
    assert study.controls == {"placebo": ("d",)}


@pytest.mark.parametrize("entry", ["virtue", "virtue=", "stoicism=a"])
def test_a_malformed_entry_says_how_to_write_it(entry: str) -> None:
    with pytest.raises(
        RequestError, match=r"write PERSONA=FINETUNE .* with one of deontology, virtue"
    ):
        name_models("m", "p", PERSONAS, None, [entry])


def test_the_hash_sees_what_decides_numbers_and_not_where_the_model_lies() -> None:
    def plan(model: str = "/here/organism", **options: int) -> str:
        return name_models(model, "p", PERSONAS, None, ["virtue=a"], **options).hash

    assert plan() == plan("/there/organism")
    assert plan() != plan(seed=1)
