"""How far a model is from the one before it, along replies of the latter to benign requests."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.evaluation.guards import Divergence, benign_divergences
from persona_probe.evaluation.judge import Judgement
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.scoring import reply_log_probabilities
from persona_probe.study.arms import Condition
from persona_probe.study.lab import Lab


def benign_replies(
    lab: Lab, own: Sequence[Judgement], most: int | None = None
) -> list[Conversation]:
    """The helpful replies of the model before finetuning to benign requests, with the requests."""
    benign = [j for j in own if j.prompt.kind == "benign" and j.outcome.kind == "safe-helpful"]
    benign = benign[:most]
    asked = lab.ask([j.prompt for j in benign])
    return [c.with_reply(j.completion.text) for c, j in zip(asked, benign, strict=True)]


def divergences_of(
    lab: Lab,
    conditions: Sequence[Condition],
    own: Sequence[Judgement],
    before: Condition,
    most: int | None = None,
) -> dict[str, Divergence]:
    """KL from H to each condition along (at most so many of) its own helpful, benign replies.

    NaN when H gave none.
    """
    given = benign_replies(lab, own, most)
    if not given:
        return {c.name: Divergence(math.nan, math.nan) for c in conditions}
    here = [c for c in conditions if c.checkpoint is None]
    found = benign_divergences(lab.model, given, [c.arm for c in here], before.arm) if here else {}
    for condition in conditions:
        if condition.checkpoint is not None:
            network = lab.network(condition.checkpoint)
            found[condition.name] = _between(lab.model, before.arm.adapter, network, given)
    return found


def perplexity_ratios(
    lab: Lab, conditions: Sequence[Condition], own: Sequence[Judgement], before: Condition
) -> dict[str, float]:
    """Perplexity of H's own helpful, benign replies under each condition, relative to H's.

    Replies count equally; nothing is in it when H gave none.
    """
    given = benign_replies(lab, own)
    if not given:
        return {}
    nats: dict[str, float] = {}
    for model, _, several in lab.together([before, *conditions]):
        scores = reply_log_probabilities(
            model, given, [c.arm for c in several], description="Perplexity"
        )
        means = scores.per_token.double().mean(dim=1).tolist()
        nats |= dict(zip([c.name for c in several], means, strict=True))
    return {c.name: math.exp(nats[before.name] - nats[c.name]) for c in conditions}


def _between(
    before: ResidualModel, adapter: str | None, after: ResidualModel, replies: list[Conversation]
) -> Divergence:
    """The same between two models of their own, reply by reply."""
    first, mean = [], []
    for conversation in replies:
        with before.adapter(adapter):
            expected = _log_probabilities(before, conversation)
        found = _log_probabilities(after, conversation)
        if expected.shape != found.shape:
            raise RequestError(
                f"{after.label} has another vocabulary or tokenizer than {before.label}, so it is "
                "no finetune of it; name finetunes of the same model"
            )
        kl = (expected.exp() * (expected - found)).sum(dim=-1)
        first.append(float(kl[0]))
        mean.append(float(kl.mean()))
    return Divergence(math.fsum(first) / len(first), math.fsum(mean) / len(mean))


def _log_probabilities(
    model: ResidualModel, conversation: Conversation
) -> Float[Tensor, "token vocab"]:
    """Of the token at each place of the reply, given everything before it."""
    tokens = model.encode(conversation, add_generation_prompt=False)
    span = tokens.response or slice(0, 0)
    batch = model.pad([tokens.ids], "right")
    logits = model.logits(batch.ids, batch.attention_mask, batch.position_ids)
    found: Tensor = logits[0, span.start - 1 : span.stop - 1].log_softmax(dim=-1).cpu()
    return found
