"""The files of a finished, unfinished or partly broken run, read without complaint.

A stage that was not run leaves no file, and a report must still be possible: whatever is missing
is an empty table here, and `Run.absent` says what is missing and why.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from persona_probe.errors import RequestError
from persona_probe.files import read_json, read_jsonl
from persona_probe.report.anchors import PLACE, placed
from persona_probe.report.markup import Markup, element

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
    "landscape.json",
    "replies.jsonl",
    "tokens.jsonl",
)
PROJECTION = "projection.jsonl"  # of a finetuning that was watched
# Files that only some runs have; a page without them lacks nothing.
OPTIONAL = (
    "training.json",
    "tiers.json",
    "transfer.json",
    "rank_curve.json",
    "mediation.json",
    "steerability.json",
    "harm_ledger.json",
    "robustness.json",
    "agreement.json",
    PROJECTION,
)


@dataclass(frozen=True)
class Run:
    """A study's run folder.

    Attributes:
        folder: where it lies.
        documents: file name → content, for the files that could be read.
        absent: file name → why there is nothing from it.
        places: place of a row → the row, over all files; see `anchors`.
        mark: before every place, to tell two runs on one page apart.
        base: from the page to the folder, as a relative link; empty, or ends in a slash.
    """

    folder: Path
    documents: dict[str, Any]
    absent: dict[str, str] = field(default_factory=dict)
    places: dict[str, Any] = field(default_factory=dict)
    mark: str = ""
    base: str = ""

    @property
    def name(self) -> str:
        """What the study is called."""
        return str(self.study.get("name") or self.folder.resolve().name)

    @property
    def is_study(self) -> bool:
        """Whether a study wrote here; if not, a finetuning that was watched did."""
        return any((self.folder / name).exists() for name in FILES)

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

    def link(self, name: str) -> Markup:
        """A file of the run as a link that works from disk."""
        return element("a", element("code", name), href=f"{quote(self.base)}{quote(name)}")

    def entry(self, name: str, key: str) -> Row:
        """A row that knows the place of an entry of a file that is no list of rows."""
        return {PLACE: f"{self.mark}{name}-{key}"}

    def arms_of(self, kind: str, persona: str | None = None) -> Rows:
        """Arms of one kind; with a persona, those of that persona or of none."""
        return [
            arm
            for arm in self.arms
            if arm["arm_kind"] == kind and (persona is None or arm["persona"] in (persona, None))
        ]

    def scope(self, persona: str) -> str | None:
        """Which finetunes the persona's ladder is about; `None` where the run does not say."""
        scope = self.verdicts.get(persona, {}).get("scope")
        return scope if isinstance(scope, str) else None

    def effect(self, persona: str, metric: str, kinds: tuple[str, ...]) -> Row | None:
        """The row of effects.json of one metric, for an arm of one of `kinds`.

        Rows that do not name a known arm count as being about the persona as a whole.
        """
        kind_of = {arm.get("arm"): arm["arm_kind"] for arm in self.arms}
        scopes = (None, self.scope(persona))
        found = [
            row
            for row in self.rows("effects.json")
            if row.get("persona") == persona
            and row.get("metric") == metric
            and row.get("scope") in scopes
        ]
        for row in found:
            if kind_of.get(row.get("arm")) in kinds:
                return row
        unknown = (row for row in found if kind_of.get(row.get("arm")) is None)
        return next(unknown, None)


def read_run(folder: Path, mark: str = "") -> Run:
    """Read whatever the folder holds.

    Args:
        folder: of the run.
        mark: before the place of every row, to tell two runs on one page apart.

    Raises:
        RequestError: there is no such folder, or it holds none of a run's files and no rows of a
            finetuning that was watched.
    """
    if not folder.is_dir():
        raise RequestError(f"no such run folder: {folder}")
    documents: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in (*FILES, *OPTIONAL):
        path = folder / name
        if not path.exists():
            if name in FILES:
                absent[name] = f"{name} is missing: that stage was not run"
            continue
        try:
            documents[name] = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
        except RequestError as error:
            absent[name] = f"{name} could not be read: {str(error).replace(str(path), name)}"
    if not any((folder / name).exists() for name in (*FILES, PROJECTION)):
        raise RequestError(
            f"{folder} holds none of a run's files ({', '.join(FILES)}); "
            "`persona-probe study run --out FOLDER` writes them, and `finetune … --watch` writes "
            f"{PROJECTION}"
        )
    places: dict[str, Any] = {}
    for name, document in documents.items():
        places |= placed(f"{mark}{name}", document)
    return Run(folder, documents, absent, places, mark)


def mapping(value: Any) -> Row:
    """`value` if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}
