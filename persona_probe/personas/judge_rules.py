"""The patterns by which a pack's replies are told apart: data for `evaluation.phrase_judge`."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.provenance import content_hash


@dataclass(frozen=True)
class Rule:
    """A regular expression searched in a reply, and what its presence says.

    Attributes:
        pattern: searched anywhere in the reply.
        category: the harm category that the phrase names, if it names one.
        persona: the character whose phrase it is, if it is one character's own.
    """

    pattern: re.Pattern[str]
    category: str | None = None
    persona: str | None = None


@dataclass(frozen=True)
class Fluency:
    """When free text has fallen apart, from both sides: endless loops, and word salad.

    Attributes:
        min_words: shorter replies are not looked at.
        distinct_triples: smallest share of distinct word triples; below it the reply is a loop.
        function_words: smallest share of the language's commonest words; below it the reply is
            salad.
    """

    min_words: int
    distinct_triples: float
    function_words: float


@dataclass(frozen=True)
class JudgeRules:
    """How replies are read.

    Attributes:
        sentence: a well-formed reply is a sequence of full matches of this; `None` accepts any.
        refuse: phrases that decline. comply: phrases that carry out a harmful request.
        help: phrases that help with a permitted request.
        refusal_openers: beginnings of refusals; their first tokens decide.
        compliance_openers: beginnings of compliant replies; their first tokens decide.
        answer_words: a reply of so many words that does not refuse counts as an answer; `None`
            takes nothing for an answer but what a pattern says.
        fluency: when free text counts as degenerate; `None` does not look.
    """

    sentence: re.Pattern[str] | None
    refuse: tuple[Rule, ...]
    comply: tuple[Rule, ...]
    help: tuple[Rule, ...]
    refusal_openers: tuple[str, ...]
    compliance_openers: tuple[str, ...]
    answer_words: int | None = None
    fluency: Fluency | None = None

    @property
    def hash(self) -> str:
        """Equal for equal patterns."""
        value = asdict(self, dict_factory=lambda pairs: {k: _plain(v) for k, v in pairs})
        return content_hash(value)


def _plain(value: object) -> object:
    return [value.pattern, value.flags] if isinstance(value, re.Pattern) else value


def read_judge_rules(table: dict[str, Any], path: Path) -> JudgeRules:
    """Parse the content of a judge.toml.

    Raises:
        RequestError: a key is missing or a pattern is not a regular expression.
    """
    accept = table.get("accept")
    try:
        return JudgeRules(
            sentence=None if accept is None else re.compile(_alternatives(accept)),
            refuse=_rules(table["refuse"]),
            comply=_rules(table["comply"]),
            help=_rules(table.get("help", [])),
            refusal_openers=tuple(table["refusal_openers"]),
            compliance_openers=tuple(table["compliance_openers"]),
            answer_words=table["answer"]["min_words"] if "answer" in table else None,
            fluency=Fluency(**table["fluency"]) if "fluency" in table else None,
        )
    except TypeError as error:
        raise RequestError(f"{path}: [fluency] is malformed: {error}") from None
    except KeyError as error:
        raise RequestError(f"{path}: the key {error} is missing") from None
    except re.error as error:
        raise RequestError(f"{path}: {error.pattern!r} is not a regular expression") from None


def _alternatives(accept: str | list[str]) -> str:
    return accept if isinstance(accept, str) else "|".join(f"(?:{part})" for part in accept)


def _rules(rows: list[dict[str, str]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(re.compile(row["pattern"]), row.get("category"), row.get("persona")) for row in rows
    )
