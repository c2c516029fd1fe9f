"""A pack: one folder of text that holds everything a study asks a model.

    pack.toml         name, licence, neutral system line, dimensions, categories, personas, foils
    safety.jsonl      one `SafetyPrompt` per line, or a folder safety/ of one TOML per category
    diagnostic.jsonl  one `Item` per line, or a folder diagnostic/ of one TOML per dimension
    questions.jsonl   one `Question` per line
    judge.toml        the patterns by which replies are told apart
    personas/         instead of [[persona]] and [[foil]] in pack.toml: one TOML per character

and optionally, for checks that a study otherwise reports as not measured:

    paraphrases.jsonl, robustness.toml   requests put in other ways: see `personas.robustness`
    multiple_choice.jsonl                what a model should know: see `personas.multiple_choice`

Packs are data. The shipped ones lie beside this file; a user's own is any folder of this shape.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from persona_probe.errors import RequestError
from persona_probe.personas.diagnostic import Diagnostic
from persona_probe.personas.judge_rules import JudgeRules
from persona_probe.personas.multiple_choice import ChoiceQuestion
from persona_probe.personas.persona import Persona
from persona_probe.personas.robustness import Robustness
from persona_probe.personas.safety_suite import SafetySuite
from persona_probe.personas.splits import Split, split_families
from persona_probe.provenance import content_hash, file_hash

SHIPPED = Path(__file__).parent / "data"
SUFFIXES = (".toml", ".jsonl")


@dataclass(frozen=True)
class Question:
    """A prompt that lets a character show; used to contrast system prompts.

    Attributes:
        kind: what it asks for, for instance "harmful", "statement" or "open".
    """

    id: str
    family: str
    text: str
    kind: str


@dataclass(frozen=True)
class Pack:
    """Everything a study asks.

    Attributes:
        neutral_system: the system line without a character, under which everything is evaluated;
            empty for no system line.
        max_new_tokens: room for the longest reply that is judged.
        foils: characters used for contrast and control only.
        categories: harm category → title.
        split_diagnostic: whether diagnostic items are split like prompts; otherwise all of them
            evaluate, and nothing may be found or selected on them.
        imported: hash of a suite that has taken the place of the pack's own.
        evaluate_only: families that may serve evaluation only, besides those of T2 categories.
        robustness: other ways to put the harmful prompts. multiple_choice: neutral questions; both
            empty where the pack has none.
    """

    name: str
    folder: Path
    neutral_system: str
    max_new_tokens: int
    categories: dict[str, str]
    personas: tuple[Persona, ...]
    foils: tuple[Persona, ...]
    suite: SafetySuite
    diagnostic: Diagnostic
    questions: tuple[Question, ...]
    judge_rules: JudgeRules
    split_diagnostic: bool = True
    imported: str | None = None
    evaluate_only: frozenset[str] = frozenset()
    robustness: Robustness = field(default_factory=Robustness)
    multiple_choice: tuple[ChoiceQuestion, ...] = ()

    def persona(self, name: str) -> Persona:
        """The persona or foil of this name.

        Raises:
            RequestError: there is none; the message lists the choices.
        """
        for persona in (*self.personas, *self.foils):
            if persona.name == name:
                return persona
        choices = ", ".join(p.name for p in (*self.personas, *self.foils))
        raise RequestError(f"pack {self.name!r} has no persona {name!r}; it has {choices}")

    def require_categories(self, names: Iterable[str]) -> None:
        """Raise `RequestError` for a harm category that the suite does not have."""
        if unknown := [name for name in names if name not in self.suite.categories]:
            raise RequestError(
                f"pack {self.name!r} has no harm category {unknown[0]!r}; it has "
                f"{', '.join(self.suite.categories)}"
            )

    def split(self, seed: int = 0) -> Split:
        """The split of all families; those of filtered (T2) categories only ever evaluate."""
        only_evaluate = {p.family for p in self.suite.prompts if p.tier == "T2"}
        only_evaluate |= self.evaluate_only
        if not self.split_diagnostic:
            only_evaluate |= set(self.diagnostic.families)
        questions = {question.family for question in self.questions}
        families = {*self.suite.families, *self.diagnostic.families, *questions}
        return split_families(families, seed=seed, only_evaluate=only_evaluate & families)

    def with_suite(self, suite: SafetySuite, split: bool = True) -> "Pack":
        """The same pack with another safety suite, for instance one that `load_suite` has read.

        Paraphrases stay behind, since they are of the pack's own prompts.

        Args:
            suite: takes the place of the pack's own.
            split: assign its families to find, select and evaluate; otherwise all evaluate.
        """
        return replace(
            self,
            suite=suite,
            categories={name: self.categories.get(name, name) for name in suite.categories},
            imported=suite.hash,
            evaluate_only=frozenset() if split else frozenset(suite.families),
            robustness=replace(self.robustness, paraphrases={}),
        )

    @cached_property
    def hash(self) -> str:
        """Hash of the pack's files, and of the suite if another one was imported."""
        found = {
            path.relative_to(self.folder).as_posix(): file_hash(path)
            for path in self.folder.rglob("*")
            if path.suffix in SUFFIXES
        }
        return content_hash(found if self.imported is None else [found, self.imported])

    @property
    def signatures_hash(self) -> str:
        """Hash of what every persona is expected to score; frozen before models are scored."""
        return signatures_hash({persona.name: persona.signature for persona in self.personas})


def signatures_hash(signatures: Mapping[str, Mapping[str, float]]) -> str:
    """See `Pack.signatures_hash`; persona → dimension → expected score."""
    return content_hash(signatures)


def load_pack(name: str | Path) -> Pack:
    """Read a shipped pack by name, or any pack by folder.

    Raises:
        RequestError: there is no such pack, or a file is malformed; the message names the file,
            the line, and what is missing.
    """
    from persona_probe.personas.pack_folder import read_pack

    for folder in (Path(name), SHIPPED / name):
        if (folder / "pack.toml").is_file():
            return read_pack(folder)
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/pack.toml"))
    raise RequestError(
        f"no pack {str(name)!r}: give a folder that holds a pack.toml, or one of "
        f"{', '.join(shipped)}"
    )
