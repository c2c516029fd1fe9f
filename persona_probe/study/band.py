"""How far the controls of one kind get, and on how many replies that rests."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """The largest effect among the directions of one control kind.

    Attributes:
        largest: as a share of the finetuning effect; NaN when there is no such share.
        read: replies to untrained harmful prompts that a judge could read. asked: all of them.
    """

    largest: float
    read: int
    asked: int

    @property
    def known(self) -> bool:
        """Whether there is a share at all; a control that breaks the model gives none."""
        return not math.isnan(self.largest)

    def __str__(self) -> str:
        if not self.known:
            return f"unknown ({self.read} of {self.asked} replies could be read)"
        told = f"{self.asked}" if self.read == self.asked else f"{self.read} of {self.asked}"
        return f"{self.largest:.2f} (n = {told} replies)"
