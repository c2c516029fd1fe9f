"""Conversations through a model, and the pooled residual stream out of it, in memory.

`extraction.py` does the same into folders, for what is too large or takes too long.
"""

from collections.abc import Sequence
from types import EllipsisType

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.budget import Budget
from persona_probe.activations.forward import values_of
from persona_probe.activations.reading import Reading, read
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.progress import progress


def capture(
    model: ResidualModel,
    conversations: Sequence[Conversation] | Reading,
    sites: Sequence[Site],
    positions: Sequence[str] = (),
    adapter: str | EllipsisType | None = ...,
    batch_tokens: int | None = None,
    description: str = "capturing",
) -> dict[str, ActivationSet]:
    """Read the residual stream of every conversation at every site.

    Args:
        model: left as it was, also after an exception.
        conversations: in any order of lengths, or what `read` made of them; results keep the
            order given.
        sites: where to read.
        positions: names, see `activations.positions`; all are pooled in the same pass. A
            `Reading` has its own.
        adapter: LoRA adapter to read with; `None` for bare weights. As it is, if not given.
        batch_tokens: largest batch in tokens. It decides speed and memory, not results, which
            differ by rounding only. By the device and its free memory, if not given.
        description: shown with the progress bar.

    Returns:
        Position → activations, in float32 on the CPU.

    Raises:
        RequestError: a conversation is longer than the model's context or has nothing at a
            position, or a name is unknown.
        PersonaProbeError: an activation is NaN or infinite.
    """
    chosen = model.active_adapter if isinstance(adapter, EllipsisType) else adapter
    found = capture_adapters(
        model, conversations, sites, positions, [chosen], batch_tokens, description
    )
    return found[chosen]


def capture_adapters(
    model: ResidualModel,
    conversations: Sequence[Conversation] | Reading,
    sites: Sequence[Site],
    positions: Sequence[str],
    adapters: Sequence[str | None],
    batch_tokens: int | None = None,
    description: str = "capturing",
) -> dict[str | None, dict[str, ActivationSet]]:
    """`capture` before and after finetuning: one load, one tokenisation, several adapters.

    All adapters read the same token ids in the same batches, so that differences between them are
    due to the weights alone.

    Args:
        model: as for `capture`, and so are the arguments not described here.
        conversations: read by every adapter.
        sites: where to read.
        positions: names of positions.
        adapters: LoRA adapters; `None` is the bare weights.
        batch_tokens: largest batch in tokens.
        description: shown with the progress bar.

    Returns:
        Adapter → position → activations.
    """
    if not sites:
        raise RequestError("nothing to capture: give at least one site")
    reading = (
        conversations
        if isinstance(conversations, Reading)
        else read(model, conversations, positions)
    )
    depth = tuple(sorted(set(sites)))
    budget = Budget.of(model) if batch_tokens is None else Budget(batch_tokens)
    results: dict[str | None, dict[str, ActivationSet]] = {}
    with progress(description, sum(reading.lengths) * len(adapters), "tokens") as advance:
        for adapter in adapters:
            with model.adapter(adapter):
                values = values_of(model, reading, range(len(reading)), depth, budget, advance)
                provenance = model.describe(prompts_hash=reading.hash)
            results[adapter] = {
                position: ActivationSet.of(
                    values=found,
                    sites=depth,
                    position=position,
                    ids=tuple(row.id for row in reading.rows[position]),
                    labels=tuple(row.label for row in reading.rows[position]),
                    families=tuple(row.family for row in reading.rows[position]),
                    provenance=provenance.with_(positions=position),
                    texts=tuple(row.text for row in reading.rows[position]),
                )
                for position, found in values.items()
            }
    return results
