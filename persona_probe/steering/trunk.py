"""Texts read once for all arms, up to the site where each arm parts from them.

Below the first site that an arm acts at, the residual stream is that of the bare text. So a text is
read once without any change, and each arm goes on from the residual stream at its own site.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.models.decoding import read_prompts
from persona_probe.models.decoding_trial import decodes
from persona_probe.models.memory import Prompts
from persona_probe.models.packing import pack
from persona_probe.models.residual_model import Hook, ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.arm import Intervention
from persona_probe.steering.row_edits import At

Ids = tuple[int, ...]
Residuals = dict[Site, dict[Ids, Float[Tensor, "token d_model"]]]
TOGETHER = {"cpu": 1024}  # tokens of texts at once; more leave a CPU's caches
ELSEWHERE = 16_384


def may_part(model: ResidualModel, longest: int) -> bool:
    """Whether arms may share texts and batches in this way, whatever else is in the batch.

    Where positions are encoded by the longest row of a batch, not beyond a certain length.
    """
    limit = model.short_context
    return decodes(model) and (limit is None or longest <= limit)


def together(model: ResidualModel) -> int:
    """Tokens of packed texts that go through a model at once."""
    return TOGETHER.get(model.device.type, ELSEWHERE)


def first_site(model: ResidualModel, interventions: Iterable[Intervention]) -> Site:
    """Where the residual stream first may differ from the bare one; the last site if nowhere."""
    touched = [site for i in interventions for site in i.touched]
    return min(touched, default=model.sites[-1])


def read_trunk(
    model: ResidualModel, texts: Sequence[Ids], last_site: Site, wanted: Sequence[Site]
) -> tuple[dict[int, Prompts], Residuals]:
    """Read texts without any change, up to a site.

    Returns:
        Their keys and values at every block, and their residual stream at the wanted sites.
    """
    resid: Residuals = {site: {} for site in wanted}
    parts: dict[int, list[Prompts]] = {}
    width = max(map(len, texts))
    for some in runs([len(text) for text in texts], together(model)):
        lengths = [len(text) for text in texts[some]]

        def keep(site: Site, some: slice = some, lengths: Sequence[int] = lengths) -> Hook:
            def hook(packed: Float[Tensor, "1 token d_model"]) -> None:
                resid[site] |= zip(texts[some], torch.split(packed[0], list(lengths)), strict=True)

            return hook

        with model.hooks([(site, keep(site)) for site in wanted]):
            kept, _ = read_prompts(model, pack(texts[some], model.device), last_site)
        for block, states in kept.items():
            parts.setdefault(block, []).append(Prompts.of_packed(states, lengths, width))
    return {block: Prompts.joined(found) for block, found in parts.items()}, resid


def runs(lengths: Sequence[int], most: int) -> list[slice]:
    """Consecutive pieces of at most `most` tokens, or of one sequence."""
    found, start, filled = [], 0, 0
    for number, length in enumerate(lengths):
        if filled and filled + length > most:
            found.append(slice(start, number))
            start, filled = number, 0
        filled += length
    return [*found, slice(start, len(lengths))]


def passes(sites: Sequence[Site], lengths: Sequence[int], most: int) -> list[slice]:
    """Neighbouring rows that part from their texts at one site and fit into one pass.

    Args:
        sites: of each row, in rising order.
        lengths: tokens of each row.
        most: tokens of a pass.
    """
    found, start = [], 0
    for site in sorted(set(sites)):
        stop = start + list(sites).count(site)
        found += [
            slice(start + some.start, start + some.stop) for some in runs(lengths[start:stop], most)
        ]
        start = stop
    return found


def packed_places(rows: slice, lengths: Int[Tensor, " row"]) -> tuple[Int[Tensor, "row pos"], At]:
    """Positions of some rows' tokens, and where they are in the packed row of these rows.

    Args:
        rows: that are in the pass; the others have no position in it.
        lengths: tokens of every row.
    """
    own = lengths[rows]
    at = torch.arange(int(own.max()))
    inside = at < own[:, None]
    positions = torch.full((len(lengths), len(at)), -1)
    positions[rows] = torch.where(inside, at, -1)
    columns = torch.zeros_like(positions)
    columns[rows] = torch.where(inside, (own.cumsum(0) - own)[:, None] + at, 0)
    return positions, (torch.zeros_like(columns), columns)
