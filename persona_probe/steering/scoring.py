"""Log-probabilities under many arms, without generating: the channel for hundreds of controls.

Cheap where it can be: arms that change nothing before the last prompt token share one pass over
everything before it; see `branches`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.batches import by_length
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import track
from persona_probe.steering.arm import Arm, alike, require_distinct
from persona_probe.steering.branches import (
    Tails,
    can_branch,
    tails_as_branches,
    tails_from_sites,
    tails_in_rows,
)
from persona_probe.steering.prefill import require_room
from persona_probe.steering.trunk import may_part

BATCH_TOKENS = 8192
MOST_LOGITS = 2**28  # per batch, so that a large vocabulary does not fill the memory
ROWS, BRANCH_TOKENS = 16, 256  # arms that share a batch; tokens that share a head


@dataclass(frozen=True)
class ReplyScores:
    """How likely given replies are.

    Attributes:
        log_probability: of the whole reply, nats.
        n_tokens: tokens of each reply.
    """

    log_probability: Float[Tensor, "arm example"]
    n_tokens: Int[Tensor, " example"]

    @property
    def per_token(self) -> Float[Tensor, "arm example"]:
        """Mean log-probability of a token, nats: comparable between replies of other length."""
        return self.log_probability / self.n_tokens


@dataclass(frozen=True)
class ReplyDivergences:
    """KL(reference ‖ arm) over the next token, in nats, along given replies.

    Attributes:
        first_token: at the reply's first token.
        per_token: mean over the reply's tokens.
    """

    first_token: Float[Tensor, "arm example"]
    per_token: Float[Tensor, "arm example"]


def as_generated(model: ResidualModel, prompt: Conversation, token_ids: Sequence[int]) -> Tokens:
    """A prompt and the reply to it, in the very tokens in which it was generated.

    The text of a reply may be tokenised otherwise when it is read again.
    """
    ids = model.encode(prompt, add_generation_prompt=True).ids
    reply = slice(len(ids), len(ids) + len(token_ids))
    return Tokens([*ids, *token_ids], len(ids), reply, (reply,))


def reply_log_probabilities(
    model: ResidualModel,
    conversations: Sequence[Conversation | Tokens],
    arms: Sequence[Arm],
    batch_tokens: int = BATCH_TOKENS,
    description: str = "Scoring replies",
) -> ReplyScores:
    """Log-probability of each conversation's last reply, given all before it, under each arm.

    Args:
        model: left as it was found.
        conversations: each ends with the reply to score; or the tokens of such ones.
        arms: conditions, with names that differ.
        batch_tokens: upper bound on the tokens of a batch.
        description: of the progress bar.

    Raises:
        RequestError: a conversation does not end with a reply, or arms share a name.
        SiteMismatchError: a direction or a site does not fit the model.
    """
    tokens = _with_replies(model, conversations)
    sums = torch.zeros(len(arms), len(tokens), dtype=torch.float64)
    for block in _blocks(model, tokens, arms, batch_tokens, description):
        reply = _replies(block.run(model, block.arms), block)
        chosen = reply.log_p.gather(-1, reply.targets[..., None])[..., 0]
        block.write(sums, chosen.masked_fill(~reply.inside, 0.0).double().sum(dim=-1))
    lengths = [t.response.stop - t.response.start for t in tokens if t.response]
    return ReplyScores(sums.float(), torch.tensor(lengths, dtype=torch.long))


def reply_divergences(
    model: ResidualModel,
    conversations: Sequence[Conversation | Tokens],
    arms: Sequence[Arm],
    reference: Arm,
    batch_tokens: int = BATCH_TOKENS,
    description: str = "Measuring side effects",
) -> ReplyDivergences:
    """How far each arm's next-token distributions are from the reference's on the same replies.

    The arguments and errors are those of `reply_log_probabilities`; `reference` is the arm whose
    distribution comes first in the divergence.
    """
    tokens = _with_replies(model, conversations)
    first = torch.zeros(len(arms), len(tokens))
    mean = torch.zeros(len(arms), len(tokens))
    for block in _blocks(model, tokens, arms, batch_tokens, description, reference):
        reply = _replies(block.run(model, block.arms), block)
        expected = _replies(block.run(model, [reference]), block).log_p
        expected = expected.repeat_interleave(len(block.arms), dim=0)
        kl = (expected.exp() * (expected - reply.log_p)).sum(dim=-1)
        kl = kl.masked_fill(~reply.inside, 0.0)
        start = reply.inside.int().argmax(dim=1, keepdim=True)
        block.write(first, kl.gather(1, start)[:, 0])
        block.write(mean, kl.sum(dim=1) / reply.inside.sum(dim=1))
    return ReplyDivergences(first, mean)


def next_token_log_probabilities(
    model: ResidualModel,
    prompts: Sequence[Conversation | Tokens],
    arms: Sequence[Arm],
    token_ids: Sequence[int],
    batch_tokens: int = BATCH_TOKENS,
    description: str = "Scoring next tokens",
) -> Float[Tensor, "arm example token"]:
    """Log-probability, in nats, of some tokens as the next one, under each arm.

    Args:
        model: left as it was found.
        prompts: conversations, whose reply's first token is scored, or token sequences that may
            already hold the beginning of a reply.
        arms: conditions, with names that differ.
        token_ids: the tokens asked about; probabilities are normalised over the whole vocabulary.
        batch_tokens: upper bound on the tokens of a batch.
        description: of the progress bar.
    """
    tokens = [p if isinstance(p, Tokens) else model.encode(p, True) for p in prompts]
    names = [f"number {i}" if isinstance(p, Tokens) else p.id for i, p in enumerate(prompts)]
    require_room(model, [len(t) for t in tokens], names)
    wanted = torch.tensor(list(token_ids), device=model.device)
    scores = torch.zeros(len(arms), len(tokens), len(token_ids))
    for block in _blocks(model, tokens, arms, batch_tokens, description):
        tails = block.run(model, block.arms)
        last = tails.positions.argmax(dim=1)
        logits = tails.logits[torch.arange(len(last)), last]
        block.write(scores, logits.log_softmax(dim=-1)[:, wanted])
    return scores


@dataclass(frozen=True)
class _Block:
    """Some sequences under some arms of one adapter; rows of one sequence together.

    Attributes:
        examples: numbers of the sequences. members: numbers of the arms.
        branch: whether the arms share their prompts.
    """

    examples: list[int]
    tokens: list[Tokens]
    members: list[int]
    arms: list[Arm]
    branch: bool

    def run(self, model: ResidualModel, arms: Sequence[Arm]) -> Tails:
        """Run the sequences under arms of one adapter."""
        run = tails_as_branches if self.branch else tails_in_rows
        if not self.branch and may_part(model, max(map(len, self.tokens))):
            run = tails_from_sites
        with model.adapter(arms[0].adapter):
            return run(model, self.tokens, [arm.interventions for arm in arms])

    def write(self, table: Tensor, values: Tensor) -> None:
        """Put one value per row into a table [arm example …]."""
        by_example = values.reshape(len(self.examples), len(self.members), *values.shape[1:])
        place = (torch.tensor(self.members)[:, None], torch.tensor(self.examples))
        table[place] = by_example.transpose(0, 1).to(table)


def _blocks(
    model: ResidualModel,
    tokens: Sequence[Tokens],
    arms: Sequence[Arm],
    batch_tokens: int,
    description: str,
    reference: Arm | None = None,
) -> Iterator[_Block]:
    """Every sequence under every arm, in batches of like length under the budget.

    A `reference` that does not spare the prompt keeps all arms from sharing it, so that both are
    computed alike.
    """
    require_distinct(arms)
    if not tokens:
        return iter(())
    may_branch = can_branch(model, tokens) and (reference is None or reference.spares_the_prompt)
    budget = min(batch_tokens, MOST_LOGITS // model.network.config.get_text_config().vocab_size)
    longest = max(map(len, tokens))
    tail = max(len(t) - t.prompt_length + 1 for t in tokens)
    blocks = []
    for (_, spares), members in alike(arms).items():
        branch = spares and may_branch
        together = BRANCH_TOKENS // tail if branch else min(ROWS, budget // longest)
        for some in _chunks(members, max(1, together)):
            cost = [
                t.prompt_length - 1 + len(some) * tail if branch else len(some) * len(t)
                for t in tokens
            ]
            for examples in by_length(cost, budget):
                chosen = ([tokens[e] for e in examples], some, [arms[a] for a in some])
                blocks.append(_Block(examples, *chosen, branch))
    return track(blocks, description, len(blocks))


def _chunks(items: list[int], size: int) -> list[list[int]]:
    """Consecutive pieces of nearly equal length, at most `size`."""
    n = -(-len(items) // size)
    return [items[len(items) * k // n : len(items) * (k + 1) // n] for k in range(n)]


@dataclass(frozen=True)
class _Replies:
    """Next-token distributions, the token that follows, and whether it is in the reply."""

    log_p: Float[Tensor, "row pos vocab"]
    targets: Int[Tensor, "row pos"]
    inside: Bool[Tensor, "row pos"]


def _replies(tails: Tails, block: _Block) -> _Replies:
    n_arms = len(tails.ids) // len(block.tokens)
    spans = [t.response or slice(0, 0) for t in block.tokens for _ in range(n_arms)]
    starts = torch.tensor([span.start for span in spans])[:, None]
    stops = torch.tensor([span.stop for span in spans])[:, None]
    position = tails.positions[:, 1:]
    inside = (position >= starts) & (position < stops)
    device = tails.logits.device
    return _Replies(
        tails.logits[:, :-1].log_softmax(dim=-1),
        tails.ids[:, 1:].to(device),
        inside.to(device),
    )


def _with_replies(
    model: ResidualModel, conversations: Sequence[Conversation | Tokens]
) -> list[Tokens]:
    tokens = [
        c if isinstance(c, Tokens) else model.encode(c, add_generation_prompt=False)
        for c in conversations
    ]
    names = [f"number {i}" if isinstance(c, Tokens) else c.id for i, c in enumerate(conversations)]
    for name, encoded in zip(names, tokens, strict=True):
        if encoded.response is None or encoded.response.start == encoded.response.stop:
            raise RequestError(f"conversation {name!r} does not end with a reply to score")
    require_room(model, [len(t) for t in tokens], names)
    return tokens
