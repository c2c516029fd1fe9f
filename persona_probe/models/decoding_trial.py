"""Does a model give rows that share prompts what it gives them alone? Tried out, not believed."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from persona_probe.models.decoding import decode, read_prompts
from persona_probe.models.memory import Memory, Prompts
from persona_probe.models.packing import pack
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site

PROMPTS = ([3, 1, 4, 1, 5, 9], [2, 7, 1, 8])
NEW = ([2, 6, 5], [8, 2, 8], [1, 4, 1])
PROMPT_OF_ROW = (0, 0, 1)
FULL, HALF = 1e-4, 5e-2
"""Largest difference of logits, as a share of the largest logit."""

_tried: WeakKeyDictionary[ResidualModel, bool] = WeakKeyDictionary()


def decodes(model: ResidualModel) -> bool:
    """Whether prompts may be read once for several rows, and from a site on; tried out once.

    Three rows, two of one prompt: shared whole, and read from the middle of the model on.
    """
    if model not in _tried:
        _tried[model] = model.packs and _agrees(model)
    return _tried[model]


def _agrees(model: ResidualModel) -> bool:
    rows = [[*PROMPTS[p], *new] for p, new in zip(PROMPT_OF_ROW, NEW, strict=True)]
    batch = model.pad(rows, "left")
    expected = model.logits(batch.ids, batch.attention_mask, batch.position_ids)[:, -len(NEW[0]) :]
    tolerance = (FULL if model.dtype == torch.float32 else HALF) * expected.abs().max()
    try:
        found = [_continued(model, memory) for memory in (_shared(model), _branched(model))]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        return False  # It says itself that it cannot.
    return all(bool((logits - expected).abs().max() <= tolerance) for logits in found)


def _shared(model: ResidualModel) -> Memory:
    kept, _ = read_prompts(model, pack(PROMPTS, model.device), model.sites[-1])
    shared = {block: _cut(states, PROMPTS) for block, states in kept.items()}
    lengths = [len(PROMPTS[p]) for p in PROMPT_OF_ROW]
    return Memory(shared, {}, PROMPT_OF_ROW, [model.n_layers] * len(lengths), lengths)


def _branched(model: ResidualModel) -> Memory:
    site = Site(model.n_layers // 2)
    seen: list[Tensor] = []
    with model.hooks([(site, seen.append)]):
        kept, _ = read_prompts(model, pack(PROMPTS, model.device), site)
    shared = {block: _cut(states, PROMPTS) for block, states in kept.items()}
    pieces = torch.split(seen[0][0], [len(p) for p in PROMPTS])
    rows = [PROMPTS[p] for p in PROMPT_OF_ROW]
    start = (site, torch.cat([pieces[p] for p in PROMPT_OF_ROW])[None])
    later, _ = read_prompts(model, pack(rows, model.device), start=start)
    private = {block: _cut(states, rows) for block, states in later.items()}
    depths = [site.layer] * len(rows)
    return Memory(shared, private, PROMPT_OF_ROW, depths, [len(row) for row in rows])


def _cut(states: tuple[Tensor, Tensor], rows: tuple[list[int], ...] | list[list[int]]) -> Prompts:
    return Prompts.of_packed(states, [len(row) for row in rows], max(map(len, rows)))


def _continued(model: ResidualModel, memory: Memory) -> Tensor:
    steps = [decode(model, torch.tensor(tokens), [memory]) for tokens in zip(*NEW, strict=True)]
    return torch.stack(steps, dim=1)
