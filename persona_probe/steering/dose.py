"""How much an arm changes the residual stream and the model, so that arms can be compared fairly.

Two directions added at one strength need not disturb a model equally. Three measures say how much:
how long the residual stream becomes, how many tokens leave the region that the model knows, and
how far the next-token distributions move. All are taken on fixed neutral text. The first token of
a text is left out of the first two: its residual is an attention sink's, of another size than all
others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import DegenerateClassesError, RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.padding import PaddedBatch
from persona_probe.models.residual_model import Hook, ResidualModel
from persona_probe.models.site import Site
from persona_probe.progress import track
from persona_probe.statistics import Estimate, mean_interval
from persona_probe.steering.arm import Arm
from persona_probe.steering.neutral_text import Layout, NeutralText, Place, order, places_of
from persona_probe.steering.radius import Radius
from persona_probe.steering.scoring import BATCH_TOKENS, reply_divergences
from persona_probe.steering.steer import steer

MOST_TOKENS = 20_000  # per half of the texts, for a covariance
MOST_BYTES = 2**31  # of unsteered activations kept at a time


@dataclass(frozen=True)
class SiteDose:
    """What an arm does to the residual stream at one site, at the positions that it steers.

    Attributes:
        site: where.
        norm_ratio: mean of |h'| / |h|, after and before the change.
        outside: share of tokens beyond the 99th percentile of the Mahalanobis radius of unsteered
            tokens at the same positions, on the half of the texts that the radius was not fitted
            on: 0.01 where nothing is changed. Undefined, with the reason, where tokens are too few.
    """

    site: Site
    norm_ratio: Estimate
    outside: Estimate

    def to_json(self) -> dict[str, Any]:
        return {
            "layer": self.site.layer,
            "norm_ratio": self.norm_ratio.to_json(),
            "outside": self.outside.to_json(),
        }


@dataclass(frozen=True)
class Dose:
    """What one arm costs on neutral text. Intervals resample prompt families.

    Attributes:
        arm: its name.
        first_token_kl: KL(unsteered ‖ arm) at the first token of the replies, nats.
        per_token_kl: mean over the tokens of a reply, then over replies, nats.
        sites: what happens in the residual stream, one entry per steered site.
    """

    arm: str
    first_token_kl: Estimate
    per_token_kl: Estimate
    sites: tuple[SiteDose, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "first_token_kl": self.first_token_kl.to_json(),
            "per_token_kl": self.per_token_kl.to_json(),
            "sites": [site.to_json() for site in self.sites],
        }


def doses(
    model: ResidualModel,
    replies: Sequence[Conversation],
    arms: Sequence[Arm],
    reference: Arm,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Dose]:
    """Measure what arms cost.

    Args:
        model: left as it was found.
        replies: neutral text: requests that end with the unsteered model's own replies. Families
            (or ids, where there are none) are what intervals resample.
        arms: what to measure.
        reference: the unsteered model, with the adapter that the arms have.
        batch_tokens: upper bound on the tokens of a batch.

    Returns:
        One dose per arm, in their order.

    Raises:
        RequestError: a conversation does not end with a reply, there is none, or an arm has
            another adapter than the reference.
        SiteMismatchError: a direction or a site does not fit the model.
    """
    if not replies:
        raise RequestError("no neutral replies to measure a dose on; give at least one")
    if other := [arm.name for arm in arms if arm.adapter != reference.adapter]:
        raise RequestError(
            f"arm {other[0]!r} has another adapter than {reference.name!r}, so that its dose would "
            "not be that of steering alone; compare arms of one adapter"
        )
    text = NeutralText.of(model, replies, batch_tokens)
    divergences = reply_divergences(model, replies, arms, reference, batch_tokens)
    with model.adapter(reference.adapter):
        radii = _radii(model, text, sorted({p for a in arms for p in places_of(a)}, key=order))
        sites = [
            _site_doses(model, text, arm, radii)
            for arm in track(arms, "Measuring doses", len(arms))
        ]
    return [
        Dose(
            arm.name,
            mean_interval(divergences.first_token[a].tolist(), text.clusters),
            mean_interval(divergences.per_token[a].tolist(), text.clusters),
            sites[a],
        )
        for a, arm in enumerate(arms)
    ]


def _radii(
    model: ResidualModel, text: NeutralText, places: Sequence[Place]
) -> dict[Place, Radius | str]:
    """The radius of unsteered tokens at each place, or why there is none."""
    together = max(1, MOST_BYTES // (2 * MOST_TOKENS * model.d_model * 4))
    radii: dict[Place, Radius | str] = {}
    for start in range(0, len(places), together):
        some = places[start : start + together]
        for place, (fitted, held_out) in _unsteered(model, text, some).items():
            try:
                radii[place] = Radius.of(fitted, held_out)
            except DegenerateClassesError as error:
                radii[place] = str(error)
    return radii


def _unsteered(
    model: ResidualModel, text: NeutralText, places: Sequence[Place]
) -> dict[Place, tuple[Tensor, Tensor]]:
    """Unsteered activations at each place: of the texts for the covariance, and of the others."""
    kept: dict[tuple[Place, bool], list[Tensor]] = {
        (place, half): [torch.zeros(0, model.d_model)] for place in places for half in (True, False)
    }
    for batch, padded in text.padded(model):
        layout = Layout.of(text, batch, padded)
        in_fit = torch.tensor([text.fitted[i] for i in batch])[:, None]

        def keep(place: Place, layout: Layout = layout, in_fit: Tensor = in_fit) -> Hook:
            def hook(resid: Float[Tensor, "row pos d_model"]) -> None:
                steered = layout.steered(place)
                for half in (True, False):
                    rows, columns = (steered & (in_fit == half)).nonzero(as_tuple=True)
                    found = resid[rows.to(resid.device), columns.to(resid.device)]
                    kept[place, half].append(found.float().cpu())

            return hook

        with model.hooks([(place[0], keep(place)) for place in places]):
            _run(model, padded, max(site for site, _ in places))
    return {
        place: (_most(torch.cat(kept[place, True])), _most(torch.cat(kept[place, False])))
        for place in places
    }


def _most(tokens: Float[Tensor, "token d_model"]) -> Float[Tensor, "kept d_model"]:
    """At most `MOST_TOKENS`, evenly spread over the texts."""
    return tokens[:: -(-len(tokens) // MOST_TOKENS) or 1]


def _site_doses(
    model: ResidualModel, text: NeutralText, arm: Arm, radii: dict[Place, Radius | str]
) -> tuple[SiteDose, ...]:
    places = places_of(arm)
    if not places:
        return ()
    ledgers = {place: _Ledger(place, radii[place], text) for place in places}
    for batch, padded in text.padded(model):
        layout = Layout.of(text, batch, padded)
        for ledger in ledgers.values():
            ledger.turn(layout, batch)
        ids = [text.tokens[i].ids for i in batch]
        # Hooks of an outer context run first: before the change, the change, after it.
        with (
            model.hooks([(p[0], ledger.before) for p, ledger in ledgers.items()]),
            steer(model, arm.interventions, layout.positions, layout.lengths, sequences=ids),
            model.hooks([(p[0], ledger.after) for p, ledger in ledgers.items()]),
        ):
            _run(model, padded, max(site for site, _ in places))
    return tuple(ledger.dose() for ledger in ledgers.values())


class _Ledger:
    """Collects the numbers of one arm at one place, token by token; no activations are kept."""

    def __init__(self, place: Place, radius: Radius | str, text: NeutralText) -> None:
        self._place = place
        self._radius = radius
        self._text = text
        self._sequence: list[int] = []
        self._ratio: list[float] = []
        self._outside: list[float] = []

    def turn(self, layout: Layout, batch: Sequence[int]) -> None:
        """Say which batch comes next."""
        self._at = layout.steered(self._place).nonzero(as_tuple=True)
        self._rows = [batch[row] for row in self._at[0].tolist()]

    def before(self, resid: Float[Tensor, "row pos d_model"]) -> None:
        self._before = self._steered(resid).norm(dim=-1)

    def after(self, resid: Float[Tensor, "row pos d_model"]) -> None:
        changed = self._steered(resid)
        self._sequence += self._rows
        self._ratio += (changed.norm(dim=-1) / self._before).tolist()
        if isinstance(self._radius, Radius):
            beyond = self._radius.distance(changed) > self._radius.limit
            self._outside += beyond.double().tolist()

    def dose(self) -> SiteDose:
        clusters = [self._text.clusters[i] for i in self._sequence]
        ratio = mean_interval(self._ratio, clusters)
        if isinstance(self._radius, str):
            return SiteDose(self._place[0], ratio, Estimate.undefined(self._radius))
        held_out = [n for n, i in enumerate(self._sequence) if not self._text.fitted[i]]
        outside = mean_interval(
            [self._outside[n] for n in held_out], [clusters[n] for n in held_out]
        )
        return SiteDose(self._place[0], ratio, outside)

    def _steered(self, resid: Tensor) -> Float[Tensor, "token d_model"]:
        rows, columns = (index.to(resid.device) for index in self._at)
        return resid[rows, columns].double()


def _run(model: ResidualModel, padded: PaddedBatch, last_site: Site) -> None:
    model.residual_forward(padded.ids, padded.attention_mask, padded.position_ids, last_site)
