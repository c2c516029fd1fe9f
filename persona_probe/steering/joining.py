"""Batches that rows join and leave: short replies do not wait for long ones."""

from collections import deque
from collections.abc import Sequence

import torch

from persona_probe.activations.budget import Budget, out_of_memory
from persona_probe.errors import PersonaProbeError
from persona_probe.models.decoding import decode
from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import Advance
from persona_probe.steering.cohort import Cohort, first_change, spares_the_prompt
from persona_probe.steering.replies import Key, Reply, Row

JOIN_WHEN_FREE = 0.25
MOST_COHORTS = 16  # each costs a few small tensor operations per block and token


def replies_joining(
    model: ResidualModel,
    rows: Sequence[Row],
    room: int,
    temperature: float,
    budget: Budget,
    advance: Advance,
) -> dict[Key, Reply]:
    """Reply in one batch that is filled up whenever enough of it is free.

    Args:
        model: that `decodes`, with the right adapter on.
        rows: all that is to be done.
        room: tokens for a reply.
        temperature: of sampling.
        budget: tokens in memory at most; halved when memory runs out, and what was being written
            then begins again.
        advance: told of rows that are done.

    Raises:
        PersonaProbeError: memory is too small for a single row.
    """
    done: dict[Key, Reply] = {}
    while len(done) < len(rows):
        try:
            _fill_and_decode(model, rows, room, temperature, budget.tokens, done, advance)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            least = min(len(row.prompt) for row in rows if row.key not in done) + room
            if budget.tokens <= least:
                raise PersonaProbeError(
                    f"memory is too small for a single reply of {room} tokens; allow fewer new "
                    "tokens, or load the model in a smaller dtype"
                ) from error
        else:
            break
        # Outside the handler, so that nothing holds what the failed batch held.
        budget.halve(budget.tokens)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return done


def _fill_and_decode(
    model: ResidualModel,
    rows: Sequence[Row],
    room: int,
    temperature: float,
    budget: int,
    done: dict[Key, Reply],
    advance: Advance,
) -> None:
    """Do all rows that are not done, and note each as soon as it is."""
    waiting = _ordered(model, [row for row in rows if row.key not in done])
    cohorts: list[Cohort] = []
    sizes: dict[int, float] = {}
    while waiting or cohorts:
        free = float(budget) - sum(sizes[id(c)] * len(c) for c in cohorts)
        roomy = free >= JOIN_WHEN_FREE * budget and len(cohorts) < MOST_COHORTS
        if waiting and (roomy or not cohorts):
            some, size = _next(model, waiting, room, free)
            if some:
                cohorts.append(Cohort(model, some, room, temperature))
                sizes[id(cohorts[-1])] = size / len(some)
        else:
            _decode(model, cohorts)
        for cohort in cohorts:
            fresh = cohort.replies.done.keys() - done.keys()
            done |= {key: cohort.replies.done[key] for key in fresh}
            advance(len(fresh))
        cohorts = [cohort for cohort in cohorts if len(cohort)]


def _decode(model: ResidualModel, cohorts: Sequence[Cohort]) -> None:
    """One more token for every row."""
    starts = [sum(map(len, cohorts[:n])) for n in range(len(cohorts))]
    tokens = torch.cat([c.place(s) for c, s in zip(cohorts, starts, strict=True)])
    with model.hooks([hook for cohort in cohorts for hook in cohort.hooks]):
        logits = decode(model, tokens, [cohort.memory for cohort in cohorts])
    for cohort, some in zip(cohorts, torch.split(logits, [len(c) for c in cohorts]), strict=True):
        cohort.add(some)


def _ordered(model: ResidualModel, rows: Sequence[Row]) -> deque[Row]:
    """Prompts of like length together, each with all its rows, the longest first.

    Rows that share whole prompts and rows that do not are apart, so that every cohort is of one
    kind. What does not fit into memory fails at once.
    """
    return deque(
        sorted(
            rows,
            key=lambda row: (
                spares_the_prompt(row),
                -len(row.prompt),
                row.prompt,
                first_change(model, row),
            ),
        )
    )


def _next(
    model: ResidualModel, waiting: deque[Row], room: int, free: float
) -> tuple[list[Row], float]:
    """Take the rows that fit, at least one; and the tokens that they will hold in memory."""
    some: list[Row] = []
    filled, prompts = 0.0, set()
    spared = spares_the_prompt(waiting[0])
    while waiting and spares_the_prompt(waiting[0]) == spared:
        row = waiting[0]
        size = float(room)
        if not spared:
            own = model.n_layers - 1 - first_change(model, row).layer
            size += len(row.prompt) * own / model.n_layers
        if row.prompt not in prompts:
            size += len(row.prompt)
        if some and filled + size > free:
            break
        prompts.add(row.prompt)
        filled += size
        some.append(waiting.popleft())
    return some, filled
