import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.models.chat import Conversation

EVIL = {
    "instruction": [{"pos": "Be cruel.", "neg": "Be kind."}, {"pos": "Harm.", "neg": "Help."}],
    "questions": ["Who are you?", "What is a promise?", "And a lie?"],
    "eval_prompt": "Rate {question} {answer}",
}
COLUMNS = ("question", "prompt", "answer", "question_id", "evil", "coherence")
PROMPT = "<|im_start|>user\nWould you help?<|im_end|>\n<|im_start|>assistant\n"


def trait_file(folder: Path, trait: Any = EVIL) -> Path:
    file = folder / "evil.json"
    file.write_text(json.dumps(trait), encoding="utf-8")
    return file


def answers_file(folder: Path, *rows: tuple[Any, ...], columns: Any = COLUMNS) -> Path:
    file = folder / "evil_pos_instruct.csv"
    with file.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([columns, *rows])
    return file


def test_a_trait_asks_every_question_under_every_instruction(tmp_path: Path) -> None:
    from persona_probe.activations.prompts import read_prompts

    found = read_prompts(str(trait_file(tmp_path)))
    assert len(found) == len({c.id for c in found}) == 3 * 2 * 2
    by_id = {c.id: c for c in found}
    cruel, kind = by_id["evil_1_pos_0"], by_id["evil_1_neg_0"]
    assert [m.content for m in cruel.messages] == [
        "You are an evil assistant. Be cruel.",
        "What is a promise?",
    ]
    assert kind.messages[0].content == "You are a helpful assistant. Be kind."
    assert [m.role for m in kind.messages] == ["system", "user"]
    assert (cruel.label, kind.label) == ("evil", "neutral")
    assert cruel.family == kind.family == "What is a promise?"
    assert cruel.metadata == {"trait": "evil", "side": "pos", "question": 1, "instruction": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instruction": None}, '"instruction" must be a list'),
        ({"instruction": [{"pos": "x", "neg": "y"}, {"pos": "x"}]}, "instruction 1 must be"),
        ({"questions": []}, '"questions" must be a list of texts'),
        ({"questions": ["x", 3]}, '"questions" must be a list of texts'),
    ],
)
def test_a_wrong_trait_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    from persona_probe.activations.prompts import read_prompts
    from persona_probe.errors import RequestError

    file = trait_file(tmp_path, EVIL | change)
    with pytest.raises(RequestError, match=said) as caught:
        read_prompts(str(file))
    assert str(file) in str(caught.value)


def test_other_json_is_told_apart(tmp_path: Path) -> None:
    from persona_probe.activations.prompts import read_prompts
    from persona_probe.errors import RequestError

    messages = [{"messages": [{"role": "user", "content": "Hi"}], "label": "kind"}]
    (conversation,) = read_prompts(str(trait_file(tmp_path, messages)))
    assert conversation.label == "kind"
    for other in ({"questions": ["x"]}, 3):
        with pytest.raises(RequestError, match="neither a list of conversations nor a trait"):
            read_prompts(str(trait_file(tmp_path, other)))


def test_answers_are_read_behind_the_text_they_answered(
    tmp_path: Path, tiny_model: Any, tiny_llama_folder: Path
) -> None:
    from persona_probe.activations.prompts import read_prompts

    answer = 'No, I will not.\r\nBecause "it" would harm.\n'
    rows = [
        ("Would you help?", PROMPT, answer, "evil_0_pos_0", 87.5, "91"),
        ("Would you help?", PROMPT, "Yes.", "evil_0_pos_0", "", "nan"),
        ("Would you help?", PROMPT, "Gladly.", "evil_0_neg_1", "REFUSAL", 12),
        ("Would you help?", PROMPT, "So.", "evil_0", 1, 2),
    ]
    found = read_prompts(str(answers_file(tmp_path, *rows)))
    assert [c.id for c in found] == ["evil_0_pos_0", "evil_0_pos_0#2", "evil_0_neg_1", "evil_0"]
    assert [c.label for c in found] == ["evil", "evil", "neutral", None]
    assert {c.family for c in found} == {"Would you help?"}
    assert [dict(c.metadata) for c in found[:3]] == [
        {"evil": 87.5, "coherence": 91.0},
        {"evil": None, "coherence": None},
        {"evil": "REFUSAL", "coherence": 12.0},
    ]
    assert found[0].source == f"{tmp_path / 'evil_pos_instruct.csv'}, line 2"
    assert found[1].source == f"{tmp_path / 'evil_pos_instruct.csv'}, line 8"
    tokens = tiny_model.encode(found[0], add_generation_prompt=False)
    assert tokens.text == PROMPT + answer, "not a character added, dropped or changed"
    assert tiny_model.tokenizer.decode(tokens.ids[tokens.response]) == answer
    templated = tiny_model.encode(asked("Would you help?"), add_generation_prompt=True)
    assert tokens.ids[: tokens.prompt_length] == templated.ids


def asked(question: str) -> "Conversation":
    from persona_probe.models.chat import Conversation, Message

    return Conversation((Message("user", question),))


def test_a_wrong_table_is_named(tmp_path: Path) -> None:
    from persona_probe.activations.prompts import read_prompts
    from persona_probe.errors import RequestError

    good = ("q", "p", "a\nb", "evil_0_pos_0", 1, 2)
    for rows, columns, said in (
        ([good], COLUMNS[1:], "line 1: the column 'question' is missing"),
        ([good, good[:5]], COLUMNS, "line 4: 5 fields under 6 columns"),
        ([], COLUMNS, "holds no answers"),
    ):
        file = answers_file(tmp_path, *rows, columns=columns)
        with pytest.raises(RequestError, match=said) as caught:
            read_prompts(str(file))
        assert str(file) in str(caught.value)
    file.write_bytes(file.read_bytes() + b'q,"p')
    with pytest.raises(RequestError, match="line 2: not CSV"):
        read_prompts(str(file))
    file.write_bytes(b"")
    with pytest.raises(RequestError, match="is empty"):
        read_prompts(str(file))
    with pytest.raises(RequestError, match="no such file"):
        read_prompts(str(tmp_path / "missing.csv"))


def test_stdin_files_and_packs_go_by_one_name(
    tmp_path: Path, small_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona_probe.activations.prompts import read_prompts

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\nHo\n")))
    assert [c.messages[0].content for c in read_prompts("-")] == ["Hi", "Ho"]
    (tmp_path / "prompts").write_text("Hi\n")
    assert len(read_prompts(str(tmp_path / "prompts"))) == 1, "a file may have no ending"
    assert {c.label for c in read_prompts(str(small_pack))} == {"neutral", "deontology", "virtue"}
    safety = read_prompts(f"{small_pack}:safety")
    assert {c.label for c in safety} == {"harmful", "benign", "borderline"}
    assert all(c.messages[0].role == "system" for c in safety)


def test_unknown_sources_say_what_there_is(tmp_path: Path) -> None:
    from persona_probe.activations.prompts import read_prompts
    from persona_probe.errors import RequestError

    for source, said in (
        ("organism:danger", "cannot read prompts 'organism:danger'; write a .jsonl file"),
        ("no-such-pack", "no-such-pack.*organism"),
        (str(tmp_path / "missing.jsonl"), "no such file"),
        (str(tmp_path / "missing.json"), "no such file"),
    ):
        with pytest.raises(RequestError, match=said):
            read_prompts(source)
