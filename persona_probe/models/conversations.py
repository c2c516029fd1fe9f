"""Conversations from files of messages and of prompts.

Byte order marks and Windows line ends are accepted. Every message about a file names the line.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.models.chat import ROLES, Conversation, Message

MESSAGES = (".jsonl", ".ndjson")


def read_conversations(path: Path | str) -> list[Conversation]:
    """Read conversations from a file.

    A `.jsonl` file holds one object per line, `{"messages": [{"role": …, "content": …}, …]}` with
    optional `id`, `label` and `family`; other keys become `metadata`. A `.json` file holds one
    list of such objects. Any other file is plain text with one prompt per line. Without an `id`,
    a conversation is named after its line.

    Raises:
        RequestError: the file is missing or empty, a line is not of this shape, or two have one
            id; the message names file, line and value.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return conversations_in_list(read_json(path), str(path))
    return conversations_in_lines(read_text(path), str(path), messages=suffix in MESSAGES)


def read_stdin() -> list[Conversation]:
    """Read conversations from the standard input.

    Lines of messages if it begins with `{`, a list of them if it is one as a whole, else text.
    """
    text = _decoded(sys.stdin.buffer.read(), "stdin")
    if _is_list(text):
        return conversations_in_list(_parsed(text, "stdin", whole_file=True), "stdin")
    return conversations_in_lines(text, "stdin", messages=text.lstrip().startswith("{"))


def conversations_in_lines(text: str, where: str, messages: bool) -> list[Conversation]:
    """One conversation per line that is not blank.

    Args:
        text: with line ends of any kind.
        where: what the text is called in messages.
        messages: each line is an object with `messages`; else it is what the user says.
    """
    if not messages and (_is_list(text) or text.lstrip().startswith('{"messages"')):
        raise RequestError(
            f"{where} holds messages, not plain text; name it .jsonl (one object per line) or "
            ".json (one list)"
        )
    # Not splitlines(): that also breaks at characters that JSON strings may hold unescaped.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source, name = f"{where}, line {number}", f"line-{number}"
        if messages:
            found.append(_conversation(_parsed(line, source), source, name))
        else:
            said = Message("user", line.strip())
            found.append(Conversation((said,), id=name, source=source))
    return _distinct(found, where)


def conversations_in_list(rows: Any, where: str) -> list[Conversation]:
    """One conversation per object with `messages`; `where` is what the list is called."""
    if not isinstance(rows, list):
        raise RequestError(
            f'{where}: expected a list of objects with "messages", got {_short(rows)}'
        )
    places = ((row, f"{where}, item {i}", f"item-{i}") for i, row in enumerate(rows, start=1))
    return _distinct((_conversation(*place) for place in places), where)


def read_text(path: Path) -> str:
    """The text of a file, line ends as they are.

    Raises:
        RequestError: the file is missing, is not readable or is not UTF-8.
    """
    if not path.is_file():
        raise RequestError(f"no such file: {path}")
    try:
        return _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """The value that a `.json` file holds as a whole.

    Raises:
        RequestError: the file is missing or is not JSON; the message names the line.
    """
    return _parsed(read_text(path), str(path), whole_file=True)


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None


def _parsed(text: str, where: str, whole_file: bool = False) -> Any:
    """Strict JSON: without NaN, and without text that cannot be written to a file again."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        if not whole_file:
            raise RequestError(f"{where}: not JSON ({error.msg})") from None
        raise RequestError(
            f"{where}, line {error.lineno}: not JSON ({error.msg}); a file with one object per "
            "line must be named .jsonl"
        ) from None
    except UnicodeEncodeError:
        raise RequestError(f"{where}: half a character, \\ud…, is no text; remove it") from None
    except ValueError as error:
        raise RequestError(f"{where}: not JSON ({error})") from None
    return value


def _is_list(text: str) -> bool:
    """Whether a text as a whole is a JSON list of objects, which no lines of prompts are."""
    if not text.lstrip().startswith("["):
        return False
    try:
        rows = json.loads(text)
    except ValueError:
        return False
    return isinstance(rows, list) and any(isinstance(row, dict) for row in rows)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not in JSON, write null")


def _distinct(conversations: Iterable[Conversation], where: str) -> list[Conversation]:
    """Refuse none at all, and two of one id: results could not tell them apart."""
    found: dict[str | None, Conversation] = {}
    for conversation in conversations:
        if (first := found.setdefault(conversation.id, conversation)) is not conversation:
            raise RequestError(
                f"{conversation.source}: the id {conversation.id!r} is already that of "
                f"{first.source}; give each conversation its own"
            )
    if not found:
        raise RequestError(f"{where} holds no conversations; write at least one")
    return list(found.values())


def _conversation(row: Any, where: str, default_id: str) -> Conversation:
    """Check one object of a messages file."""
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise RequestError(f'{where}: expected an object with a list "messages", got {_short(row)}')
    messages = tuple(_message(message, where) for message in row["messages"])
    if not messages:
        raise RequestError(f'{where}: "messages" is empty; a conversation needs at least one')
    conversation = Conversation(
        messages,
        id=_text(row, "id", where) or default_id,
        label=_text(row, "label", where),
        family=_text(row, "family", where),
        metadata={k: v for k, v in row.items() if k not in ("messages", "id", "label", "family")},
        source=where,
    )
    try:
        _ = conversation.spans
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    return conversation


def _text(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if not isinstance(value, str | int | None):
        raise RequestError(f'{where}: "{key}" must be text, got {_short(value)}')
    return None if value is None else str(value)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise RequestError(
            f'{where}: a message is {{"role": …, "content": "text"}}, got {_short(value)}'
        )
    if value.get("role") not in ROLES:
        raise RequestError(
            f"{where}: unknown role {value.get('role')!r}; roles are {', '.join(ROLES)}"
        )
    return Message(value["role"], value["content"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
