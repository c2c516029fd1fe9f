"""Give the residual stream the component along a direction that another model has there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.batches import by_length
from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.chat import Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.operation import projection

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Patch:
    """h + (p - h·v) v, where p is the projection of another model's run on identical tokens.

    Token by token, so it says what the direction mediates on a fixed text: Vig et al. 2020,
    arXiv:2004.12265; Geiger et al. 2023, arXiv:2303.02536. A model only looks back, so the values
    of a text serve for all its beginnings, too. Tokens that are still to be generated have none:
    patch the prompt, or score given replies, or add the mean difference instead and say so.

    Attributes:
        unit: the vector that the projections are on.
        projections: text (token ids) → site → projection of each of its tokens, float32, in
            residual units.
    """

    unit: Float[Tensor, " d_model"]
    projections: Mapping[Ids, Mapping[Site, Float[Tensor, " token"]]]

    def __post_init__(self) -> None:
        for ids, by_site in self.projections.items():
            for site, values in by_site.items():
                if len(values) != len(ids) or not bool(values.isfinite().all()):
                    raise RequestError(
                        f"a patch needs one finite projection per token, got {len(values)} values "
                        f"at {site} for a text of {len(ids)} tokens"
                    )

    @classmethod
    def read(
        cls,
        model: ResidualModel,
        texts: Sequence[Tokens | Sequence[int]],
        direction: Direction,
        sites: Sequence[Site] | None = None,
        adapter: str | None = None,
        batch_tokens: int = 8192,
    ) -> "Patch":
        """Run a model on texts and keep its projections.

        Args:
            model: that the values are taken from, left as it was found; inside a `steer` block
                they are those of the steered model.
            texts: as token ids, with replies where these are to be patched.
            direction: to project on.
            sites: where; the direction's own if not given.
            adapter: LoRA adapter that is on.
            batch_tokens: upper bound on the tokens of a batch.

        Raises:
            SiteMismatchError: the model has another width, or no such site.
            RequestError: there is no text, no site, or a text has no tokens.
        """
        direction.check_fits(model, allow_other_model=True)
        places = (direction.site,) if sites is None else tuple(sites)
        rows = [tuple(t.ids if isinstance(t, Tokens) else t) for t in texts]
        if not (rows and all(rows) and places):
            raise RequestError(
                "a patch is read on texts of at least one token, at sites; give both"
            )
        found: dict[Ids, dict[Site, Tensor]] = {ids: {} for ids in rows}
        unit = direction.unit.to(model.device, torch.float32)
        with model.adapter(adapter):
            for batch in by_length([len(ids) for ids in rows], batch_tokens):
                chosen = [rows[i] for i in batch]
                for site, values in _projections(model, chosen, unit, places).items():
                    for ids, row in zip(chosen, values, strict=True):
                        found[ids][site] = row[: len(ids)].clone()
        return cls(direction.unit, found)

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
        raise RequestError(
            f"a patch on {direction.persona!r} at {site} has values for the tokens of known texts "
            "only; say which text each row holds with `sequences`"
        )

    def token_parameters(
        self, direction: Direction, site: Site, ids: Sequence[int]
    ) -> Float[Tensor, "token 1"]:
        if not torch.equal(direction.unit.cpu().float(), self.unit.cpu().float()):
            raise RequestError(
                f"the values of this patch are projections on another vector than the "
                f"{direction.name}; read them again with this direction"
            )
        by_site = self._known(tuple(ids))
        if site not in by_site:
            known = ", ".join(str(s.layer) for s in by_site)
            raise RequestError(
                f"no values of the patch on {direction.persona!r} at layer {site.layer}; values "
                f"are known at layers {known}"
            )
        return by_site[site][: len(ids), None]

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch d_model"],
        parameters: Float[Tensor, "*#batch 1"],
    ) -> Float[Tensor, "*batch d_model"]:
        return resid + ((parameters - projection(resid, unit)) * unit).to(resid.dtype)

    def _known(self, ids: Ids) -> Mapping[Site, Float[Tensor, " token"]]:
        if ids in self.projections:
            return self.projections[ids]
        begun = [text for text in self.projections if text[: len(ids)] == ids[: len(text)]]
        if not begun:
            raise RequestError(
                f"the patch was read on {len(self.projections)} texts, and the {len(ids)} tokens "
                "that are run are neither one of them nor its beginning; read it on these tokens"
            )
        return self.projections[max(begun, key=len)]


def _projections(
    model: ResidualModel,
    rows: Sequence[Ids],
    unit: Float[Tensor, " d_model"],
    sites: Sequence[Site],
) -> dict[Site, Float[Tensor, "row pos"]]:
    """Projections of right-padded rows at several sites, on the CPU."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site, resid: Tensor) -> None:
        found[site] = projection(resid, unit.to(resid.device))[..., 0].cpu()

    batch = model.pad(rows, "right")
    hooks = [(site, lambda resid, site=site: keep(site, resid)) for site in sites]
    with model.hooks(hooks):
        model.residual_forward(batch.ids, batch.attention_mask, batch.position_ids, max(sites))
    return found
