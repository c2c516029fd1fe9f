"""A steered model as a plain model folder: no hooks, no package, any runtime.

Two operations can be written into weights. A constant that is added at every position after one
block is a bias. A direction that is removed is taken out of everything that writes into the
residual stream: the embeddings, and the outputs of attention and MLP of every block. That is more
than hooks after the blocks do, which leave it to attention and MLP to read the direction within a
block; nothing in a baked model ever holds it. Whatever depends on the position or on the residual
itself needs hooks. The folder that is written is loaded again and compared with the hooks.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.files import write_json
from persona_probe.models.folder import read_network, whole_folder, write_network
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.writers import add_constant, family_of, remove_direction
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Intervention
from persona_probe.steering.operation import Operation
from persona_probe.steering.steer import steer

RECORD = "persona_probe.json"
SAMPLE = (2, 16)  # sequences and tokens on which the folder is compared with the hooks
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}


@dataclass(frozen=True)
class Baked:
    """A folder that was written, and how well it does what the hooks do.

    Attributes:
        folder: where it is.
        how: what was done to which weights, in words.
        dtype: of the weights.
        difference: between the folder's logits and those under hooks, the largest, as a share of
            the largest logit; for an ablation the largest |h·v| / |h| after any block.
        effect: the same between the steered and the unsteered model, for comparison.
    """

    folder: Path
    how: str
    dtype: str
    difference: float
    effect: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def bake(
    model: ModelRef | str,
    direction: Direction,
    operation: Operation,
    out: Path,
    adapter: str | None = None,
    schedule: str = "both",
    device: str = "cpu",
) -> Baked:
    """Write an operation along a direction into a copy of a model's weights.

    Args:
        model: a model folder or hub name; never changed.
        direction: found in this model.
        operation: an addition, or an ablation to zero.
        out: folder to write; it must not exist, or be empty.
        adapter: LoRA adapter to merge into the weights first.
        schedule: positions acted at; weights act at all of them, so only "both" can be baked.
        device: where the comparison runs.

    Returns:
        What was written. The folder also holds `persona_probe.json`, which says so.

    Raises:
        RequestError: the operation or the schedule cannot be written into weights, the
            architecture has no place for it, or `out` is there already; the message says why.
        SiteMismatchError: the direction does not fit the model.
        PersonaProbeError: what was written does not do what the hooks do; nothing is left then.
    """
    _require_bakeable(operation, schedule)
    ref = ModelRef(model) if isinstance(model, str) else model
    ref = ref.with_adapter(adapter or ref.adapter)
    with whole_folder(out) as temporary:
        hooked = _hooked(ref, direction, operation, device)
        network, tokenizer, dtype = read_network(ref)
        family_of(network)
        if isinstance(operation, Add):
            (amount,) = operation.parameters(direction, direction.site)
            how = add_constant(network, direction.site.layer, amount * direction.unit)
        else:
            how = remove_direction(network, direction.unit)
        write_network(temporary, network, tokenizer, dtype)
        del network
        difference, effect = _compared(temporary, direction, operation, device, hooked)
        if not difference <= TOLERANCE.get(dtype, 0.05):
            raise PersonaProbeError(
                f"the baked model of {ref.label} differs from the steered one by {difference:.2g} "
                f"of its largest logit ({how}), so it was not kept; steer with hooks"
            )
        baked = Baked(out, how, str(dtype).removeprefix("torch."), difference, effect)
        write_json(temporary / RECORD, _record(baked, ref, direction, operation))
    return baked


def _require_bakeable(operation: Operation, schedule: str) -> None:
    if schedule != "both":
        raise RequestError(
            f"weights act at every position, so the schedule {schedule!r} cannot be baked; only "
            "'both' can"
        )
    if isinstance(operation, Add):
        return
    if isinstance(operation, Ablate):
        if operation.level is None or operation.level == 0:
            return
        raise RequestError(
            "only an ablation to 0 can be written into weights: another level would have to be "
            "added anew after every block; leave the level out"
        )
    name = type(operation).__name__
    raise RequestError(
        f"{name} depends on the residual stream in a way that weights cannot express; only add and "
        "ablate can be baked"
    )


@dataclass(frozen=True)
class _Hooked:
    """What the folder must do: logits of some tokens, and the same reading of text.

    Attributes:
        steered, unsteered: with hooks and without.
        reading: hashes of the tokenizer and of the chat template.
    """

    ids: Int[Tensor, "row pos"]
    steered: Float[Tensor, "row pos vocab"]
    unsteered: Float[Tensor, "row pos vocab"]
    reading: tuple[str | None, str]


def _hooked(ref: ModelRef, direction: Direction, operation: Operation, device: str) -> _Hooked:
    """Steer by hooks."""
    model = load_model(ref, device=device, dtype="float32")
    vocabulary = model.network.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, SAMPLE, generator=generator)
    sites = model.sites if isinstance(operation, Ablate) else None
    with steer(model, [Intervention(direction, operation, "both", sites)]):
        steered = _logits(model, ids)
    return _Hooked(ids, steered, _logits(model, ids), _reading(model))


def _compared(
    folder: Path, direction: Direction, operation: Operation, device: str, hooked: _Hooked
) -> tuple[float, float]:
    """Difference and effect, as `Baked` has them, of the folder as it lies on the disk."""
    baked = load_model(ModelRef(str(folder)), device=device, dtype="float32")
    if _reading(baked) != hooked.reading:
        raise PersonaProbeError(
            "the tokenizer of the baked model does not read text as the original's does, so it "
            "was not kept; steer with hooks"
        )
    steered, unsteered = hooked.steered, hooked.unsteered
    left = 0.0

    def look(resid: Float[Tensor, "row pos d_model"]) -> None:
        nonlocal left
        along = (resid.double() @ direction.unit.to(resid.device).double()).abs()
        left = max(left, float((along / resid.double().norm(dim=-1)).max()))

    with baked.hooks([(site, look) for site in baked.sites]):
        logits = _logits(baked, hooked.ids)
    size = float(unsteered.abs().max())
    if isinstance(operation, Ablate):
        return left, float((logits - unsteered).abs().max()) / size
    difference = float((logits - steered).abs().max())
    return difference / size, float((steered - unsteered).abs().max()) / size


def _reading(model: ResidualModel) -> tuple[str | None, str]:
    return model.tokenizer_hash, model.chat_template_hash


def _logits(model: ResidualModel, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos vocab"]:
    ids = ids.to(model.device)
    positions = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    return model.logits(ids, torch.ones_like(ids), positions).cpu()


def _record(
    baked: Baked, ref: ModelRef, direction: Direction, operation: Operation
) -> dict[str, Any]:
    """What the folder is, for whoever finds it."""
    settings = vars(operation)
    return {
        "format": "persona_probe.baked/1",
        "model": ref.label,
        "revision": ref.revision,
        "adapter": None if ref.adapter is None else Path(ref.adapter).name,
        "operation": type(operation).__name__,
        "settings": {key: value for key, value in settings.items() if value is not None},
        "persona": direction.persona,
        "layer": direction.site.layer if isinstance(operation, Add) else None,
        "finder": direction.finder,
        "family": direction.family,
        "how": baked.how,
        "difference": baked.difference,
        "effect": baked.effect,
        "provenance": direction.provenance.to_json(),
    }
