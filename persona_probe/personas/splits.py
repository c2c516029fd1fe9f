"""Find, select, evaluate: three disjoint sets of prompt families.

Prompts made from one template resemble each other so much that a split inside a template measures
memory. Whole families are therefore assigned, by a hash of their name and the seed: the order in
which they are listed does not matter.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from persona_probe.errors import RequestError, SplitLeakError
from persona_probe.provenance import content_hash

Part = Literal["find", "select", "evaluate"]
PARTS: tuple[Part, ...] = get_args(Part)
SHARES = (0.5, 0.2, 0.3)


@dataclass(frozen=True)
class Split:
    """Which families serve which purpose."""

    find: frozenset[str]
    select: frozenset[str]
    evaluate: frozenset[str]
    seed: int = 0

    @property
    def hash(self) -> str:
        """16 hexadecimal digits; equal exactly when the same families serve the same purposes."""
        return content_hash({part: sorted(getattr(self, part)) for part in PARTS})

    def part_of(self, family: str) -> Part:
        """The purpose that a family serves.

        Raises:
            RequestError: the family is not in this split.
        """
        for part in PARTS:
            if family in getattr(self, part):
                return part
        raise RequestError(f"prompt family {family!r} is not in this split ({self.hash})")

    def require_part(self, families: Iterable[str], part: Part) -> None:
        """Raise `SplitLeakError` when any of `families` serves another purpose than `part`."""
        wrong = sorted({f for f in families if f not in getattr(self, part)})
        if wrong:
            raise SplitLeakError(
                f"{len(wrong)} prompt families, {wrong[0]!r} first, are not in the {part!r} part "
                f"of split {self.hash}: use each prompt for one purpose only"
            )


def split_families(
    families: Iterable[str],
    seed: int = 0,
    shares: tuple[float, float, float] = SHARES,
    only_evaluate: Collection[str] = (),
) -> Split:
    """Assign families to find, select and evaluate.

    Families are ranked by a hash of their name, and the ranking is cut at the shares, so that the
    parts have the sizes asked for even when there are few families.

    Args:
        families: every family once or more; order does not matter.
        seed: another seed gives another assignment.
        shares: of find, select and evaluate; they add up to 1.
        only_evaluate: families that may serve evaluation only (filtered categories).
    """
    if abs(sum(shares) - 1) > 1e-9 or min(shares) < 0:
        raise RequestError(f"split shares must be non-negative and add up to 1, got {shares}")
    free = sorted(set(families) - set(only_evaluate), key=lambda f: _rank(f, seed))
    first = round(shares[0] * len(free))
    second = first + round(shares[1] * len(free))
    reserved = set(families) & set(only_evaluate)
    return Split(
        find=frozenset(free[:first]),
        select=frozenset(free[first:second]),
        evaluate=frozenset(free[second:]) | frozenset(reserved),
        seed=seed,
    )


def _rank(family: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{family}".encode()).hexdigest()
