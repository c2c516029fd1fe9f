"""The files of a finished, unfinished or partly broken run, read without complaint.

A stage that was not run leaves no file, and a report must still be possible: whatever is missing
is an empty table here, and `Run.absent` says what is missing and why.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_json, read_jsonl

Row = dict[str, Any]
Rows = list[Row]

FILES = (
    "study.json",
    "verdict.json",
    "arms.json",
    "effects.json",
    "dose.json",
    "selection.json",
    "validation.json",
    "comparison.json",
    "profiles.json",
    "replies.jsonl",
)


@dataclass(frozen=True)
class Run:
    """A study's run folder.

    Attributes:
        folder: where it lies.
        documents: file name → content, for the files that could be read.
        absent: file name → why there is nothing from it.
    """

    folder: Path
    documents: dict[str, Any]
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the study is called."""
        return str(self.study.get("name") or self.folder.resolve().name)

    @property
    def study(self) -> Row:
        """The frozen plan."""
        return mapping(self.documents.get("study.json"))

    @property
    def personas(self) -> tuple[str, ...]:
        """Personas in the plan's order; those of the results when the plan is missing."""
        planned = self.study.get("personas") or self.study.get("finetuned")
        names: Iterable[Any] = planned if isinstance(planned, list | dict) else self.verdicts
        found = tuple(str(name) for name in names)
        return found or tuple(dict.fromkeys(str(r["persona"]) for r in self.arms if r["persona"]))

    @property
    def verdicts(self) -> dict[str, Row]:
        """Persona → its ladder."""
        personas = mapping(mapping(self.documents.get("verdict.json")).get("personas"))
        return {str(name): mapping(value) for name, value in personas.items()}

    @property
    def verdict(self) -> Row:
        """The whole verdict, with its summary and flags."""
        return mapping(self.documents.get("verdict.json"))

    @cached_property
    def arms(self) -> Rows:
        """One row per arm; `arm_kind` and `persona` are always there."""
        return [{"arm_kind": "unknown", "persona": None, **row} for row in self.rows("arms.json")]

    @cached_property
    def tiers(self) -> dict[str, str]:
        """Category → tier, as the replies have it, for harmful requests."""
        replies = self.rows("replies.jsonl")
        harmful = [row for row in replies if row.get("kind") == "harmful"]
        return {str(r.get("category")): str(r.get("tier")) for r in harmful if r.get("tier")}

    @cached_property
    def chosen(self) -> dict[str, Row]:
        """Persona → the `layer` and `strength` that steer."""
        found = mapping(mapping(self.documents.get("selection.json")).get("chosen"))
        return {str(name): value for name, value in found.items() if isinstance(value, dict)}

    def rows(self, name: str, key: str = "rows") -> Rows:
        """A file's rows; none when the file is missing."""
        content = self.documents.get(name)
        if isinstance(content, dict):
            content = content.get(key)
        if not isinstance(content, list):
            return []
        return [row for row in content if isinstance(row, dict)]

    def arms_of(self, kind: str, persona: str | None = None) -> Rows:
        """Arms of one kind; with a persona, those of that persona or of none."""
        return [
            arm
            for arm in self.arms
            if arm["arm_kind"] == kind and (persona is None or arm["persona"] in (persona, None))
        ]

    def effect(self, persona: str, metric: str, kinds: tuple[str, ...]) -> Row | None:
        """The row of effects.json of one metric, for an arm of one of `kinds`.

        Rows that do not name a known arm count as being about the persona as a whole.
        """
        kind_of = {arm.get("arm"): arm["arm_kind"] for arm in self.arms}
        found = [
            row
            for row in self.rows("effects.json")
            if row.get("persona") == persona and row.get("metric") == metric
        ]
        for row in found:
            if kind_of.get(row.get("arm")) in kinds:
                return row
        unknown = (row for row in found if kind_of.get(row.get("arm")) is None)
        return next(unknown, None)


def read_run(folder: Path) -> Run:
    """Read whatever the folder holds.

    Raises:
        RequestError: there is no such folder, or it holds none of a run's files.
    """
    if not folder.is_dir():
        raise RequestError(f"no such run folder: {folder}")
    documents: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in FILES:
        path = folder / name
        if not path.exists():
            absent[name] = f"{name} is missing: that stage was not run"
            continue
        try:
            documents[name] = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
        except RequestError as error:
            absent[name] = f"{name} could not be read: {str(error).replace(str(path), name)}"
    if len(absent) == len(FILES) and not any((folder / name).exists() for name in FILES):
        raise RequestError(
            f"{folder} holds none of a run's files ({', '.join(FILES)}); "
            "`persona-probe study run --out FOLDER` writes them"
        )
    return Run(folder, documents, absent)


def mapping(value: Any) -> Row:
    """`value` if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}
