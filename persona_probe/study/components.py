"""The components of one model's residual stream along many directions, ready to be patched in."""

from collections.abc import Sequence

import torch
from torch import Tensor

from persona_probe.activations.batches import by_length
from persona_probe.models.chat import Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.arm import Intervention
from persona_probe.steering.patch import Patch
from persona_probe.study.arms import BySite

BATCH_TOKENS = 8192
Ids = tuple[int, ...]


def patches(
    model: ResidualModel,
    adapter: str | None,
    texts: Sequence[Tokens],
    several: Sequence[BySite],
    schedule: str | None,
) -> list[tuple[Intervention, ...]]:
    """`Patch.read` for several sets of directions in one pass over the texts.

    Args:
        model: whose components are read, left as it was found.
        adapter: that is on.
        texts: exactly those that will be run.
        several: each a direction per site.
        schedule: positions that are patched; where a direction was read, if not given.

    Returns:
        The interventions of each set.
    """
    sites = sorted({site for directions in several for site in directions})
    at = {site: [n for n, directions in enumerate(several) if site in directions] for site in sites}
    units = {
        site: torch.stack([several[n][site].unit for n in at[site]]).to(model.device, torch.float32)
        for site in sites
    }
    rows = list(dict.fromkeys(tuple(text.ids) for text in texts))
    found: dict[tuple[int, Site], dict[Ids, Tensor]] = {}
    with model.adapter(adapter):
        for batch in by_length([len(ids) for ids in rows], BATCH_TOKENS):
            chosen = [rows[i] for i in batch]
            for site, values in _projections(model, chosen, units).items():
                for ids, row in zip(chosen, values, strict=True):
                    for place, number in enumerate(at[site]):
                        one = found.setdefault((number, site), {})
                        one[ids] = row[: len(ids), place].clone()
    return [
        tuple(
            Intervention(
                direction,
                Patch(
                    direction.unit,
                    {ids: {site: v} for ids, v in found[number, site].items()},
                ),
                schedule,
            )
            for site, direction in directions.items()
        )
        for number, directions in enumerate(several)
    ]


def _projections(
    model: ResidualModel, rows: Sequence[Ids], units: dict[Site, Tensor]
) -> dict[Site, Tensor]:
    """Site → projections [row pos direction] of right-padded rows, on the CPU."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site, resid: Tensor) -> None:
        found[site] = (resid.float() @ units[site].T).cpu()

    batch = model.pad(rows, "right")
    hooks = [(site, lambda resid, site=site: keep(site, resid)) for site in units]
    with model.hooks(hooks):
        model.residual_forward(batch.ids, batch.attention_mask, batch.position_ids, max(units))
    return found
