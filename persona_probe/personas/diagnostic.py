"""The persona diagnostic: items whose answers place a model on ethical dimensions."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One question with two fixed answers.

    Attributes:
        id: unique within the diagnostic.
        dimension: what the item measures.
        key: +1 when choosing `options[0]` speaks for the dimension, -1 when it speaks against.
        format: how it is asked, for instance "statement" or "choice".
        family: the template behind the wording.
        text: what the user says.
        options: the two answers, word for word as the model would give them.
    """

    id: str
    dimension: str
    key: int
    format: str
    family: str
    text: str
    options: tuple[str, str]


@dataclass(frozen=True)
class Diagnostic:
    """Items over an ordered set of dimensions."""

    dimensions: tuple[str, ...]
    items: tuple[Item, ...]

    def of(self, families: Collection[str]) -> "Diagnostic":
        """The items of these families; the dimensions stay."""
        return Diagnostic(self.dimensions, tuple(i for i in self.items if i.family in families))

    @property
    def families(self) -> tuple[str, ...]:
        """Every family once, in item order."""
        return tuple(dict.fromkeys(item.family for item in self.items))

    def __len__(self) -> int:
        return len(self.items)
