"""What a LoRA adapter can write into the residual stream, read from its weights alone.

An adapter changes a matrix W of a block to W + s B A. Three kinds of matrix reach the residual:

- an output projection (attention output, MLP down): B A is added to what it writes, so it writes
  into the column space of B;
- a value projection: what it adds is written through the block's output projection O, so it writes
  O B A. O is a weight of the model, not of the adapter: without `output_weights` the value
  projections are left out and listed;
- all others (query, key, gate, up, embeddings, fused matrices) act through something nonlinear,
  or cannot be told apart: they are left out and listed.

The writes of a block are put side by side, M = [s1 B1 A1, s2 B2 A2, ...], and decomposed,
M = U S V'. U is what is written, S how strongly *if all inputs were white*. That is the limit of
this number: real inputs are not white, a write may never be used, later blocks transform it, and
the cross term of changed values through a changed output projection is not included. It needs no
prompts, so it complements the shift of activations and does not replace it.

Site l sees what blocks 0 to l wrote; each row has its own block and all blocks up to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.before_after.adapter_file import Adapter, LowRank, OutputWeights, role
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.site import Site

RELATIVE_RANK = 1e-6


@dataclass(frozen=True, eq=False)
class Written:
    """What is written into the residual stream: the left half of a singular value decomposition.

    Attributes:
        directions: orthonormal columns, strongest first.
        strengths: singular values.
    """

    directions: Float[Tensor, "d_model rank"]
    strengths: Float[Tensor, " rank"]


@dataclass(frozen=True)
class WeightRow:
    """One direction against what the adapter writes; weights are no sample, so no intervals.

    Attributes:
        persona: whose direction.
        site: where it was found.
        scope: "block" for the site's own block, "up to" for all blocks up to it.
        rank: dimensions written into.
        cosine: |cosine| of the direction to the first left singular direction.
        top_k_share: squared length of the unit direction in the first k of them.
        k: that number, at most `rank`.
        energy_share: share of the written energy that lies along the direction, v'MM'v / tr MM'.
        chance_share: mean of `top_k_share` for random directions, k / d_model.
        chance_high: its 97.5th percentile (a beta distribution).
        chance_energy: mean of `energy_share` for random directions, 1 / d_model.
        reason: why the numbers are undefined, if they are.
    """

    persona: str
    site: Site
    scope: str
    rank: int
    cosine: float
    top_k_share: float
    k: int
    energy_share: float
    chance_share: float
    chance_high: float
    chance_energy: float
    reason: str | None = None


@dataclass(frozen=True)
class WeightDifference:
    """Directions against the writes of one adapter.

    Attributes:
        adapter: its folder.
        rows: one per persona, site and scope.
        left_out: changed matrices that are not in it.
    """

    adapter: str
    rows: tuple[WeightRow, ...]
    left_out: tuple[str, ...]


def weight_difference(
    directions: DirectionSet,
    adapter: Adapter,
    before: Adapter | None = None,
    output_weights: OutputWeights | None = None,
    k: int = 4,
) -> WeightDifference:
    """Compare directions with what an adapter writes.

    Args:
        directions: of any persona, at any sites.
        adapter: of the finetuned model.
        before: of the model before finetuning where that is an adapter too: subtracted.
        output_weights: attention output projections of the model, for value projections.
        k: singular directions to compare with.

    Raises:
        SiteMismatchError: the adapter writes into a stream of another width.
        RequestError: k is not positive.
    """
    if k < 1:
        raise RequestError(f"need at least one singular direction, got k = {k}")
    writes, left_out = residual_writes(adapter, before, output_weights)
    rows = []
    for persona, by_site in directions.items():
        for site, direction in sorted(by_site.items()):
            blocks = {"block": [site.layer], "up to": [b for b in writes if b <= site.layer]}
            for scope, layers in blocks.items():
                parts = [part for layer in layers for part in writes.get(layer, ())]
                width = {part.b.shape[0] for part in parts} - {len(direction.unit)}
                if width:
                    raise SiteMismatchError(
                        f"{direction.name} has {len(direction.unit)} dimensions, {adapter.folder} "
                        f"writes into {width.pop()}; it belongs to another model"
                    )
                rows.append(_row(persona, site, scope, direction.unit.double(), parts, k))
    return WeightDifference(str(adapter.folder), tuple(rows), left_out)


def residual_writes(
    adapter: Adapter,
    before: Adapter | None = None,
    output_weights: OutputWeights | None = None,
) -> tuple[dict[int, list[LowRank]], tuple[str, ...]]:
    """Low-rank writes by layer, and the names of changed matrices that are left out."""
    changed = dict(adapter.factors)
    for name, old in (before.factors if before else {}).items():
        changed[name] = changed[name].minus(old) if name in changed else old.negated()
    writes: dict[int, list[LowRank]] = {}
    left_out = list(adapter.left_out)
    for name, product in sorted(changed.items()):
        layer, kind = role(name)
        if kind == "output":
            writes.setdefault(layer, []).append(product)
        elif kind == "value" and output_weights and layer in output_weights.by_layer:
            writes.setdefault(layer, []).append(output_weights.carry(layer, product))
        else:
            left_out.append(name)
    return writes, tuple(left_out)


def written(parts: Sequence[LowRank]) -> Written | None:
    """Left singular vectors and values of all writes side by side; None where nothing is written.

    Exact, and never larger than d_model × total rank: M M' = sum_i (B_i A_i)(B_i A_i)'.
    """
    halves = []
    for part in parts:
        # B A = B (R' Q'), with A' = Q R: the orthonormal Q does not change M M'.
        halves.append(part.b.double() @ torch.linalg.qr(part.a.double().T).R.T)
    if not halves:
        return None
    directions, strengths, _ = torch.linalg.svd(torch.cat(halves, dim=1), full_matrices=False)
    # What is left of factors that cancel is rounding of the factors themselves, kept in float32.
    size = math.sqrt(sum(float((p.b.double().norm() * p.a.double().norm()) ** 2) for p in parts))
    kept = strengths > RELATIVE_RANK * size
    return Written(directions[:, kept], strengths[kept]) if bool(kept.any()) else None


def _row(
    persona: str,
    site: Site,
    scope: str,
    unit: Float[Tensor, " d_model"],
    parts: Sequence[LowRank],
    k: int,
) -> WeightRow:
    from scipy.stats import beta

    found, d_model, nan = written(parts), len(unit), math.nan
    if found is None:
        reason = "the adapter changes nothing there that writes into the residual stream"
        none = (0, nan, nan, 0, nan, nan, nan, 1 / d_model)
        return WeightRow(persona, site, scope, *none, reason=reason)
    rank = len(found.strengths)
    k = min(k, rank)
    along = found.directions.T @ unit
    energy = found.strengths.square()
    return WeightRow(
        persona=persona,
        site=site,
        scope=scope,
        rank=rank,
        cosine=float(along[0].abs()),
        top_k_share=float(along[:k].square().sum()),
        k=k,
        energy_share=float((along.square() * energy).sum() / energy.sum()),
        chance_share=k / d_model,
        chance_high=float(beta.ppf(0.975, k / 2, (d_model - k) / 2)) if k < d_model else 1.0,
        chance_energy=1 / d_model,
    )
