"""Many arms in one row: the prompt is read once, and every arm grows a branch from its end.

Arms that change nothing before the last prompt token share everything before it. Their tails (the
last prompt token and what follows it) stand side by side behind one copy of the shared head, and
the attention mask lets each see the head and itself. The numbers are those of separate rows; the
work is one short tail per arm, and no key-value cache is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.models.chat import Tokens
from persona_probe.models.decoding import read_prompts
from persona_probe.models.packing import pack
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.arm import Intervention
from persona_probe.steering.prefill import token_positions
from persona_probe.steering.row_edits import RowEdits
from persona_probe.steering.trunk import first_site, packed_places, passes, read_trunk, together

MASKED_ATTENTION = ("sdpa", "eager")
_verified: WeakKeyDictionary[ResidualModel, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Tails:
    """The last prompt token and everything after it, one row per sequence and arm.

    Attributes:
        logits: of the token after each, float32.
        ids: the tokens, on the CPU.
        positions: of the tokens in their sequences, -1 at padding, on the CPU.
    """

    logits: Float[Tensor, "row tail vocab"]
    ids: Int[Tensor, "row tail"]
    positions: Int[Tensor, "row tail"]


def tails_in_rows(
    model: ResidualModel, tokens: Sequence[Tokens], arms: Sequence[Sequence[Intervention]]
) -> Tails:
    """Run every sequence under every arm in a row of its own.

    Args:
        model: the model, with the right adapter on.
        tokens: the sequences.
        arms: interventions of each arm.

    Returns:
        Rows of one sequence together, padded on the left: the first tokens of short tails are
        earlier prompt tokens.
    """
    rows = [(t, arm) for t in tokens for arm in arms]
    batch = model.pad([t.ids for t, _ in rows], "left")
    positions = token_positions(batch)
    edits = RowEdits(model, [arm for _, arm in rows], [t.ids for t, _ in rows])
    edits.place(positions, torch.tensor([t.prompt_length for t, _ in rows]))
    tail = max(_tail(t) for t in tokens)
    with model.hooks(edits.hooks):
        logits = model.logits(
            batch.ids, batch.attention_mask, batch.position_ids, "last" if tail == 1 else None
        )
    return Tails(logits[:, -tail:], batch.ids[:, -tail:].cpu(), positions[:, -tail:])


def tails_as_branches(
    model: ResidualModel, tokens: Sequence[Tokens], arms: Sequence[Sequence[Intervention]]
) -> Tails:
    """`tails_in_rows` for arms that spare the prompt, its tokens read once for all arms.

    Rows are padded on the right. Prompts have at least two tokens.
    """
    n, n_arms, tail = len(tokens), len(arms), max(_tail(t) for t in tokens)
    head_batch = model.pad([t.ids[: t.prompt_length - 1] for t in tokens], "left")
    tail_batch = model.pad([t.ids[t.prompt_length - 1 :] for t in tokens], "right")
    lengths = torch.tensor([t.prompt_length for t in tokens])
    positions = token_positions(tail_batch)
    positions = torch.where(positions >= 0, positions + lengths[:, None] - 1, -1)

    edits = RowEdits(
        model, [arm for _ in tokens for arm in arms], [t.ids for t in tokens for _ in arms]
    )
    row = torch.arange(n * n_arms)[:, None].expand(-1, tail)
    column = head_batch.ids.shape[1] + (row % n_arms) * tail + torch.arange(tail)
    edits.place(
        positions.repeat_interleave(n_arms, dim=0),
        lengths.repeat_interleave(n_arms),
        at=(row // n_arms, column),
    )
    tail_ids = positions.clamp_min(0).to(model.device)
    with model.hooks(edits.hooks), torch.no_grad():
        output = model.network(
            input_ids=torch.cat([head_batch.ids, tail_batch.ids.repeat(1, n_arms)], dim=1),
            attention_mask=_mask(head_batch.attention_mask, n_arms, tail, model.dtype),
            position_ids=torch.cat([head_batch.position_ids, tail_ids.repeat(1, n_arms)], dim=1),
            use_cache=False,
            logits_to_keep=n_arms * tail,
        )
    logits: Tensor = output.logits
    return Tails(
        logits.float().reshape(n * n_arms, tail, -1),
        tail_batch.ids.cpu().repeat_interleave(n_arms, dim=0),
        positions.repeat_interleave(n_arms, dim=0),
    )


def tails_from_sites(
    model: ResidualModel, tokens: Sequence[Tokens], arms: Sequence[Sequence[Intervention]]
) -> Tails:
    """`tails_in_rows` without padding, every sequence read once up to where an arm first acts.

    Only for a model that `decodes`. Rows are padded on the right.
    """
    rows = sorted(
        ((first_site(model, arm), t, a) for t in range(len(tokens)) for a, arm in enumerate(arms)),
        key=lambda row: (row[0], -len(tokens[row[1]]), row[1]),
    )
    sites, texts = [site for site, _, _ in rows], [tuple(t.ids) for t in tokens]
    lengths = torch.tensor([len(texts[t]) for _, t, _ in rows])
    prompts = torch.tensor([tokens[t].prompt_length for _, t, _ in rows])
    edits = RowEdits(model, [arms[a] for _, _, a in rows], [texts[t] for _, t, _ in rows])
    _, resid = read_trunk(model, list(dict.fromkeys(texts)), max(sites), sorted(set(sites)))

    tail_batch = model.pad([t.ids[t.prompt_length - 1 :] for t in tokens], "right")
    starts = torch.tensor([t.prompt_length for t in tokens])[:, None] - 1
    positions = token_positions(tail_batch)
    positions = torch.where(positions >= 0, positions + starts, -1)
    vocabulary = model.network.config.get_text_config().vocab_size
    logits = torch.zeros(
        len(tokens), len(arms), positions.shape[1], vocabulary, device=model.device
    )
    with model.hooks(edits.hooks):
        for some in passes(sites, lengths.tolist(), together(model)):
            own, site = rows[some], sites[some.start]
            places, at = packed_places(some, lengths)
            edits.place(places, prompts, at)
            known = torch.cat([resid[site][texts[t]] for _, t, _ in own])[None]
            wanted = places >= prompts[:, None] - 1
            batch = pack([texts[t] for _, t, _ in own], model.device)
            _, found = read_prompts(model, batch, None, (site, known), at[1][wanted])
            assert found is not None
            pieces = torch.split(found, wanted[some].sum(dim=1).tolist())
            for (_, t, a), one in zip(own, pieces, strict=True):
                logits[t, a, : len(one)] = one
    return Tails(
        logits.flatten(0, 1),
        tail_batch.ids.cpu().repeat_interleave(len(arms), dim=0),
        positions.repeat_interleave(len(arms), dim=0),
    )


def can_branch(model: ResidualModel, tokens: Sequence[Tokens]) -> bool:
    """Whether branches of these sequences are computed correctly by this model.

    Tried out on a few tokens, once per model: an architecture may read positions off a mask of
    another shape, keep a recurrent state, or have attention that takes no such mask.
    """
    config = model.network.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if window is not None and max(map(len, tokens)) > window:
        return False
    if min(t.prompt_length for t in tokens) < 2:
        return False
    if model not in _verified:
        _verified[model] = config._attn_implementation in MASKED_ATTENTION and _agrees(model)
    return _verified[model]


def _tail(tokens: Tokens) -> int:
    return len(tokens.ids) - tokens.prompt_length + 1


def _agrees(model: ResidualModel) -> bool:
    """Compare branches with rows of their own."""
    vocabulary = model.network.config.get_text_config().vocab_size
    ids = [i % vocabulary for i in range(1, 11)]
    samples = [Tokens(ids[:8], 6, None, ()), Tokens(ids[2:], 6, None, ())]
    rows = tails_in_rows(model, samples, [(), ()])
    try:
        branches = tails_as_branches(model, samples, [(), ()])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # It says itself that it cannot.
    # Both kinds hold these positions; padding and earlier prompt tokens differ by design.
    expected, found = (t.logits[t.positions >= 5] for t in (rows, branches))
    # Rounding differs; a mask that was ignored shifts logits by a good part of their size.
    tolerance = max(1e-3, 10 * torch.finfo(model.dtype).eps) * (1 + expected.abs().max())
    return bool((found - expected).abs().max() < tolerance)


def _mask(
    head: Int[Tensor, "sequence head"], n_branches: int, tail: int, dtype: torch.dtype
) -> Float[Tensor, "sequence 1 pos pos"]:
    """What may be seen: 0 yes, the most negative number no."""
    n, width = head.shape
    size = width + n_branches * tail
    branch = torch.full((size,), -1, device=head.device)
    branch[width:] = torch.arange(n_branches, device=head.device).repeat_interleave(tail)
    own = (branch[:, None] == branch) | (branch == -1)
    real = torch.ones(n, 1, size, dtype=torch.bool, device=head.device)
    real[:, 0, :width] = head.bool()
    itself = torch.eye(size, dtype=torch.bool, device=head.device)
    # A token that saw nothing would be NaN; padding therefore sees itself.
    seen = ((own & torch.ones_like(own).tril()) & real) | itself
    mask = torch.zeros(n, size, size, dtype=dtype, device=head.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
