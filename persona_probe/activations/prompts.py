"""What to read, by the name that the command line gives it."""

from pathlib import Path

from persona_probe.activations.contrast import contrast, request
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, read_conversations
from persona_probe.personas.pack import load_pack

SYNTAX = "a .jsonl file of messages, a text file, PACK (personas against neutral) or PACK:safety"


def read_prompts(source: str) -> list[Conversation]:
    """Conversations from a file, or from a pack.

    Args:
        source: one of the forms in `SYNTAX`. A pack's personas are asked its questions under
            their own and under the neutral system line, labelled by persona; its safety prompts
            come under the neutral system line, labelled by kind.

    Raises:
        RequestError: there is no such file or pack, or its content is malformed.
    """
    path = Path(source)
    if path.is_file() or path.suffix in (".jsonl", ".json", ".txt", ".csv"):
        return read_conversations(path)
    name, _, what = source.partition(":")
    if what not in ("", "safety"):
        raise RequestError(f"cannot read prompts {source!r}; write {SYNTAX}")
    pack = load_pack(name)
    if what == "safety":
        return [request(prompt, pack.neutral_system) for prompt in pack.suite.prompts]
    return contrast(pack, pack.personas, {question.family for question in pack.questions})
