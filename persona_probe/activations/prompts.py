"""What to read, by the name that the command line gives it."""

from pathlib import Path

from persona_probe.activations.contrast import contrast, request
from persona_probe.activations.persona_vectors import read_answers, trait_prompts
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.conversations import (
    conversations_in_list,
    read_conversations,
    read_json,
    read_stdin,
)
from persona_probe.personas.pack import load_pack

SYNTAX = (
    "a .jsonl file of messages, a text file, a .json trait or .csv of answers of persona vectors, "
    "- for the standard input, PACK (personas against neutral) or PACK:safety"
)
FILES = (".jsonl", ".ndjson", ".json", ".csv", ".txt")


def read_prompts(source: str) -> list[Conversation]:
    """Conversations from a file, from the standard input, or from a pack.

    Args:
        source: one of the forms in `SYNTAX`. A pack's personas are asked its questions under
            their own and under the neutral system line, labelled by persona; its safety prompts
            come under the neutral system line, labelled by kind.

    Raises:
        RequestError: there is no such file or pack, or its content is malformed.
    """
    if source == "-":
        return read_stdin()
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_answers(path)
    if suffix == ".json":
        value = read_json(path)
        is_list = isinstance(value, list)
        return conversations_in_list(value, source) if is_list else trait_prompts(value, path)
    if path.is_file() or suffix in FILES:
        return read_conversations(path)
    return _from_pack(source)


def _from_pack(source: str) -> list[Conversation]:
    name, _, what = source.partition(":")
    if what not in ("", "safety"):
        raise RequestError(f"cannot read prompts {source!r}; write {SYNTAX}")
    pack = load_pack(name)
    if what == "safety":
        return [request(prompt, pack.neutral_system) for prompt in pack.suite.prompts]
    return contrast(pack, pack.personas, {question.family for question in pack.questions})
