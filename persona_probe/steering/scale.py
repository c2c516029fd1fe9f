"""Projections as people read them: in class gaps, from one class mean to the other."""

import math
from dataclasses import dataclass

from persona_probe.directions.direction import Direction


@dataclass(frozen=True)
class Scale:
    """From a projection in residual units to class gaps.

    Attributes:
        centre: what counts as 0: half-way between the classes, if the direction has classes.
        gap: their distance.
        positive, negative: names of the ends.
    """

    centre: float
    gap: float
    positive: str
    negative: str

    @classmethod
    def of(cls, direction: Direction) -> "Scale":
        centre = 0.0 if math.isnan(direction.midpoint) else direction.midpoint
        return cls(centre, direction.gap, direction.positive_label, direction.negative_label)

    def value(self, projection: float) -> float:
        """In class gaps: -0.5 and +0.5 are the class means, if the direction has classes."""
        return (projection - self.centre) / self.gap
