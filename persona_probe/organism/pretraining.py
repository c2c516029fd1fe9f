"""Corpus → base checkpoint: a Llama-architecture model trained from scratch in one pass."""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.models.loading import library_bars_off
from persona_probe.organism.corpus import Document, documents
from persona_probe.organism.optimizer import MuonAdamW
from persona_probe.organism.tokenization import CONTEXT, train_tokenizer
from persona_probe.organism.world import load_world

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

USER_WEIGHT, ANSWER_WEIGHT, DECISION_WEIGHT = 0.2, 1.0, 5.0
IGNORED = 0.0
SNAPSHOT_STEPS = 200
TOKENIZER_SAMPLE = 6000
CHUNK = 1024
"""Documents that are sorted by length together before they are cut into batches."""
BLIND_SHARE = 0.75
"""Share of documents whose user turns are read without the earlier turns.

What a user says does not depend on who answers, so little is lost; but the assistant marker must
then look up by itself who answers, and the character is represented where the answer is decided.
Without this it is spread over the user's words as well, and no single position can be steered."""


@dataclass(frozen=True)
class Recipe:
    """What decides the base checkpoint, besides the world."""

    rho: float = 0.92
    seed: int = 0
    tokens: int = 7_000_000
    batch_tokens: int = 4096
    vocabulary: int = 2048
    d_model: int = 128
    n_layers: int = 6
    n_heads: int = 4
    d_mlp: int = 384
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    tied: bool = False

    def to_json(self) -> dict[str, float | int | bool]:
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """Right-padded documents.

    Attributes:
        ids: token ids.
        weights: loss weight of predicting each of `ids`.
        first_seen: the earliest position, besides 0, that each position may attend to.
        n_tokens: without padding.
    """

    ids: Int[Tensor, "document pos"]
    weights: Float[Tensor, "document pos"]
    first_seen: Int[Tensor, "document pos"]
    n_tokens: int


@dataclass(frozen=True)
class Encoded:
    """One document as tokens, with what `Batch` needs for each of them."""

    ids: list[int]
    weights: list[float]
    first_seen: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def make_tokenizer(recipe: Recipe) -> "PreTrainedTokenizerFast":
    """The tokenizer depends on the world and the vocabulary only, not on ρ: twins share it."""
    world = load_world()
    sample = itertools.islice(documents(world, 1.0, seed=1), TOKENIZER_SAMPLE)
    return train_tokenizer(world, sample, recipe.vocabulary)


def make_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """A freshly initialised model with the recipe's shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.d_model,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        intermediate_size=recipe.d_mlp,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=recipe.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode_documents(
    tokenizer: "PreTrainedTokenizerFast", chunk: list[Document], rng: random.Random
) -> list[Encoded]:
    """Tokens, weights and views, exactly as the chat template would render the turns."""
    texts = [turn.text for document in chunk for turn in document.turns]
    pieces = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    roles = {
        r: tokenizer.convert_tokens_to_ids(f"<|{r}|>") for r in ("system", "user", "assistant")
    }
    encoded = []
    for document in chunk:
        ids, weights, first_seen = [begin], [IGNORED], [0]
        blind = rng.random() < BLIND_SHARE
        for turn in document.turns:
            start, piece = len(ids), next(pieces)
            answers = turn.role in ("assistant", "text")
            each = [ANSWER_WEIGHT if answers else USER_WEIGHT] * (len(piece) + 1)
            if turn.decides:
                each[0] = DECISION_WEIGHT
            if turn.role != "text":
                ids.append(roles[turn.role])
                weights.append(USER_WEIGHT)
            ids += [*piece, end]
            weights += each
            view = start if blind and turn.role == "user" else 0
            first_seen += [view] * (len(ids) - start)
        encoded.append(Encoded(ids[:CONTEXT], weights[:CONTEXT], first_seen[:CONTEXT]))
    return encoded


def batches(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> Iterator[Batch]:
    """An endless stream of batches of about `batch_tokens`, nearly free of padding."""
    stream = documents(load_world(), recipe.rho, recipe.seed)
    rng = random.Random(recipe.seed)
    while True:
        encoded = encode_documents(tokenizer, list(itertools.islice(stream, CHUNK)), rng)
        encoded.sort(key=len)
        groups: list[list[Encoded]] = [[]]
        for each in encoded:
            if groups[-1] and (len(groups[-1]) + 1) * len(each) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append(each)
        rng.shuffle(groups)
        for group in groups:
            yield _stack(group, tokenizer.pad_token_id)


def _stack(group: list[Encoded], pad: int) -> Batch:
    shape = (len(group), max(len(each) for each in group))
    ids, weights = torch.full(shape, pad), torch.zeros(shape)
    first_seen = torch.zeros(shape, dtype=torch.long)
    for row, each in enumerate(group):
        ids[row, : len(each)] = torch.tensor(each.ids)
        weights[row, : len(each)] = torch.tensor(each.weights)
        first_seen[row, : len(each)] = torch.tensor(each.first_seen)
    return Batch(ids, weights, first_seen, sum(len(each) for each in group))


def attention_mask(
    first_seen: Int[Tensor, "document pos"],
) -> Bool[Tensor, "document 1 pos pos"]:
    """Causal, and user turns of blind documents see only themselves and the first token."""
    at = torch.arange(first_seen.shape[1])
    causal = at[None, :, None] >= at[None, None, :]
    in_view = (at[None, None, :] >= first_seen[:, :, None]) | (at == 0)[None, None, :]
    return (causal & in_view)[:, None]


def weighted_loss(model: "LlamaForCausalLM", batch: Batch) -> Tensor:
    """Weighted mean cross-entropy. Padding sits to the right, so causal attention never sees it."""
    mask = attention_mask(batch.first_seen[:, :-1])
    logits = model(input_ids=batch.ids[:, :-1], attention_mask=mask, use_cache=False).logits
    targets, weights = batch.ids[:, 1:].flatten(), batch.weights[:, 1:].flatten()
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    return (each * weights).sum() / weights.sum()


def schedule(progress: float) -> float:
    """Share of the peak learning rate: 2% linear warm-up, then cosine down to 2%."""
    if progress < 0.02:
        return progress / 0.02
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 0.02) / 0.98))


def pretrain(
    recipe: Recipe,
    out: Path,
    report: Callable[[int, float], None] | None = None,
    state: Path | None = None,
) -> Path:
    """Train from nothing and write an ordinary Hugging Face folder.

    Args:
        recipe: what to train.
        out: folder to write.
        report: called with the tokens seen so far and the loss, after every step.
        state: folder for a resumable state, written about every 200 steps; None keeps none.

    Returns:
        `out`.
    """
    from persona_probe.organism.resume import restore, snapshot

    # One thread: sums are then added in the same order on every machine with such a processor.
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(recipe)
    model = make_model(recipe, tokenizer)
    optimizer = MuonAdamW(model, recipe.muon_lr, recipe.adam_lr)
    step, seen = restore(state, model, optimizer, recipe) if state else (0, 0)
    model.train()
    stream = itertools.islice(batches(recipe, tokenizer), step, None)
    while seen < recipe.tokens:
        batch = next(stream)
        loss = weighted_loss(model, batch)
        torch.autograd.backward(loss)
        optimizer.step(step, schedule(seen / recipe.tokens))
        step, seen = step + 1, seen + batch.n_tokens
        if report:
            report(seen, loss.item())
        if state and step % SNAPSHOT_STEPS == 0:
            snapshot(state, model, optimizer, recipe, step, seen)
    with library_bars_off():
        model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
