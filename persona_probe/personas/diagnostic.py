"""The persona diagnostic: items whose answers place a model on ethical dimensions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

Channel = Literal["self-report", "behaviour"]
SCALE = "scale"  # format of items that are answered on the pack's scale
SCENARIO = "scenario"  # format of items whose options are whole replies to a request
BEHAVIOUR = (SCENARIO, "choice")


@dataclass(frozen=True)
class Item:
    """One question with fixed answers.

    Attributes:
        id: unique within the diagnostic.
        dimension: what the item measures.
        key: +1 when choosing `options[0]` speaks for the dimension, -1 when it speaks against.
        format: how it is asked. "scale" items are statements rated on the pack's scale; of
            "scenario" items the options are whole replies to a request for help; of all others,
            for instance "likert" or "choice", they are two short answers.
        family: the template behind the wording.
        text: what the user says, or the statement to rate.
        options: the answers, word for word as the model would give them; on a scale from most
            to least agreeing.
        topic: what it is about, in a word or two.
        names_construct: whether a statement uses the words of the theory that it measures.
    """

    id: str
    dimension: str
    key: int
    format: str
    family: str
    text: str
    options: tuple[str, ...]
    topic: str | None = None
    names_construct: bool | None = None

    @property
    def channel(self) -> Channel:
        """Whether the item asks what the model holds, or lets it act."""
        return "behaviour" if self.format in BEHAVIOUR else "self-report"


@dataclass(frozen=True)
class Form:
    """One way of putting a statement to the model.

    Attributes:
        stem: number of the stem.
        labels: name of the labels, "digits" or "letters".
        descending: whether the first label stands for the least agreeing option.
    """

    stem: int
    labels: str
    descending: bool


@dataclass(frozen=True)
class Scale:
    """How statements are rated.

    Attributes:
        options: from most to least agreeing.
        labels: name → the labels of the options in the order of display.
        kinds: name of the labels → what the model is told they are, "number" or "letter".
        stems: questions with {statement}, {options} and {kind} in them.
    """

    options: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    stems: tuple[str, ...]

    def forms(self, n: int | None = None) -> tuple[Form, ...]:
        """The first `n` forms, or all; every run of two orders × all labels is balanced."""
        inner = list(product((False, True), self.labels))
        several = [
            Form((i + turn) % len(self.stems), labels, descending)
            for turn in range(len(self.stems))
            for i, (descending, labels) in enumerate(inner)
        ]
        return tuple(several[:n])

    def shown(self, form: Form) -> tuple[str, ...]:
        """The options in the order in which this form shows them."""
        return self.options[::-1] if form.descending else self.options

    def ask(self, statement: str, form: Form) -> str:
        """The statement as this form puts it, with the labels in front of the options."""
        pairs = zip(self.labels[form.labels], self.shown(form), strict=True)
        listed = "\n".join(f"{label}. {option}" for label, option in pairs)
        return self._put(statement, form, listed, self.kinds[form.labels])

    def ask_in_words(self, statement: str, form: Form) -> str:
        """The same without labels, to be answered in the words of an option."""
        listed = "\n".join(f"- {option}" for option in self.shown(form))
        return self._put(statement, form, listed, "option")

    def _put(self, statement: str, form: Form, listed: str, kind: str) -> str:
        # Not str.format on the statement: it may hold braces.
        stem = self.stems[form.stem].replace("{kind}", kind).replace("{options}", listed)
        return stem.replace("{statement}", statement)


@dataclass(frozen=True)
class Diagnostic:
    """Items over an ordered set of dimensions.

    Attributes:
        scale: how items of the format "scale" are rated; `None` when there are none.
        foils: items that measure what a persona must not be confused with (acquiescence,
            nonsense, style, caution); their dimensions are none of `dimensions`.
    """

    dimensions: tuple[str, ...]
    items: tuple[Item, ...]
    scale: Scale | None = None
    foils: tuple[Item, ...] = field(default=())

    def of(self, families: Collection[str]) -> "Diagnostic":
        """The items of these families; dimensions, scale and foils stay."""
        return replace(self, items=tuple(i for i in self.items if i.family in families))

    def of_channel(self, channel: Channel) -> "Diagnostic":
        """The items of one channel."""
        return replace(self, items=tuple(i for i in self.items if i.channel == channel))

    @property
    def of_foils(self) -> "Diagnostic":
        """The foils as a diagnostic of their own."""
        dimensions = tuple(dict.fromkeys(item.dimension for item in self.foils))
        return replace(self, dimensions=dimensions, items=self.foils, foils=())

    @property
    def families(self) -> tuple[str, ...]:
        """Every family once, in item order; not those of foils, which nobody splits."""
        return tuple(dict.fromkeys(item.family for item in self.items))

    def __len__(self) -> int:
        return len(self.items)
