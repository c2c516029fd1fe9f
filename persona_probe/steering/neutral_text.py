"""Fixed text that side effects are measured on, and where in it an arm acts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.activations.batches import by_length
from persona_probe.models.chat import Conversation, Tokens
from persona_probe.models.padding import PaddedBatch
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.arm import Arm
from persona_probe.steering.prefill import token_positions
from persona_probe.steering.schedule import schedule_named

Place = tuple[Site, frozenset[str]]  # a site, and the schedules that act there


@dataclass(frozen=True)
class NeutralText:
    """Neutral text, tokenised once.

    Attributes:
        clusters: of each sequence. fitted: whether it belongs to the half that covariances are
            fitted on; families are never cut.
        batches: indices of sequences.
    """

    tokens: list[Tokens]
    clusters: list[str]
    fitted: list[bool]
    batches: list[list[int]]

    @classmethod
    def of(
        cls, model: ResidualModel, replies: Sequence[Conversation], budget: int
    ) -> "NeutralText":
        tokens = [model.encode(c, add_generation_prompt=False) for c in replies]
        clusters = [c.family or c.id or str(number) for number, c in enumerate(replies)]
        half = {name: n % 2 == 0 for n, name in enumerate(dict.fromkeys(clusters))}
        batches = by_length([len(t) for t in tokens], budget)
        return cls(tokens, clusters, [half[name] for name in clusters], batches)

    def padded(self, model: ResidualModel) -> Iterator[tuple[list[int], PaddedBatch]]:
        """Each batch: which sequences, and their tokens, padded on the right."""
        for batch in self.batches:
            yield batch, model.pad([self.tokens[i].ids for i in batch], "right")


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch are."""

    positions: Int[Tensor, "row pos"]
    lengths: Int[Tensor, " row"]

    @classmethod
    def of(cls, text: NeutralText, batch: Sequence[int], padded: PaddedBatch) -> "Layout":
        lengths = torch.tensor([text.tokens[i].prompt_length for i in batch])
        return cls(token_positions(padded), lengths)

    def steered(self, place: Place) -> Bool[Tensor, "row pos"]:
        """Tokens in any of the schedules, without the first of a text."""
        found = torch.zeros_like(self.positions, dtype=torch.bool)
        for name in place[1]:
            found |= schedule_named(name)(self.positions, self.lengths[:, None]) != 0
        return found & (self.positions > 0)


def places_of(arm: Arm) -> list[Place]:
    """Where an arm acts, in order of depth."""
    when: dict[Site, set[str]] = {}
    for intervention in arm.interventions:
        for site in intervention.where:
            when.setdefault(site, set()).add(intervention.when)
    return [(site, frozenset(names)) for site, names in sorted(when.items())]


def order(place: Place) -> tuple[Site, list[str]]:
    """Key to sort places by."""
    return place[0], sorted(place[1])
