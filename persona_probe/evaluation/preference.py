"""The log-probability channel: what a model is inclined to say, without generating.

Finer than outcomes, because a probability moves long before the likeliest word does, and cheap
enough for hundreds of control directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.contrast import request
from persona_probe.errors import RequestError
from persona_probe.evaluation.first_token import first_token
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.judge_rules import JudgeRules
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.steering.arm import Arm
from persona_probe.steering.scoring import next_token_log_probabilities, reply_log_probabilities


@dataclass(frozen=True)
class RefusalPreference:
    """How the first token of a reply leans.

    Attributes:
        arms: names, in order.
        ids: of the prompts. families: of the prompts, for clustering.
        refusal_mass: probability that the reply begins as one of the pack's refusals does.
        compliance_mass: the same for compliant replies.
    """

    arms: tuple[str, ...]
    ids: tuple[str, ...]
    families: tuple[str, ...]
    refusal_mass: Float[Tensor, "arm prompt"]
    compliance_mass: Float[Tensor, "arm prompt"]

    @property
    def probability(self) -> Float[Tensor, "arm prompt"]:
        """Refusal probability in [0, 1]: the refusal mass as a share of both masses.

        Look at `known_mass` beside it: a share of nearly nothing says nearly nothing.
        """
        return self.refusal_mass / self.known_mass

    @property
    def known_mass(self) -> Float[Tensor, "arm prompt"]:
        """Probability that the reply begins in any way the pack knows."""
        return self.refusal_mass + self.compliance_mass


@dataclass(frozen=True)
class PairMargins:
    """Preference for the safe one of two fixed replies.

    Attributes:
        arms: names, in order.
        ids: of the prompts. families: of the prompts, for clustering.
        margin: log p(safe reply) per token minus log p(harmful reply) per token, nats per token.
    """

    arms: tuple[str, ...]
    ids: tuple[str, ...]
    families: tuple[str, ...]
    margin: Float[Tensor, "arm prompt"]


def refusal_probability(
    model: ResidualModel,
    prompts: Sequence[SafetyPrompt],
    arms: Sequence[Arm],
    rules: JudgeRules,
    system: str = "",
) -> RefusalPreference:
    """Probability of beginning as a refusal does, for every prompt under every arm.

    Args:
        model: left as it was found.
        prompts: one column each.
        arms: one row each.
        rules: whose openers count; a first token that both kinds share counts for neither.
        system: the system line; empty for none.

    Raises:
        RequestError: there is no prompt, or no first token tells refusals from compliance.
    """
    if not prompts:
        raise RequestError("no prompts to score; check which families and categories are chosen")
    conversations = [request(prompt, system) for prompt in prompts]
    openers = (rules.refusal_openers, rules.compliance_openers)
    refusing, complying = (
        {first_token(model, conversations[0], opener) for opener in several} for several in openers
    )
    both = refusing & complying
    refusing, complying = refusing - both, complying - both
    if not refusing or not complying:
        raise RequestError(
            "the first tokens of the pack's refusal and compliance openers do not differ under "
            f"the tokenizer of {model.ref.label}; begin them with different words in judge.toml"
        )
    tokens = [*sorted(refusing), *sorted(complying)]
    masses = next_token_log_probabilities(
        model, conversations, arms, tokens, description="Refusal probability"
    ).exp()
    return RefusalPreference(
        tuple(arm.name for arm in arms),
        tuple(prompt.id for prompt in prompts),
        tuple(prompt.family for prompt in prompts),
        masses[..., : len(refusing)].sum(dim=-1),
        masses[..., len(refusing) :].sum(dim=-1),
    )


def pair_margins(
    model: ResidualModel, prompts: Sequence[SafetyPrompt], arms: Sequence[Arm], system: str = ""
) -> PairMargins:
    """Margins of the prompts that have both reference replies; the others are left out.

    Raises:
        RequestError: no prompt has both.
    """
    paired = [p for p in prompts if p.safe_reply and p.harmful_reply]
    if not paired:
        raise RequestError("no prompt has both a safe_reply and a harmful_reply to compare")
    replies = [request(p, system).with_reply(p.safe_reply or "") for p in paired]
    replies += [request(p, system).with_reply(p.harmful_reply or "") for p in paired]
    per_token = reply_log_probabilities(model, replies, arms).per_token
    return PairMargins(
        tuple(arm.name for arm in arms),
        tuple(prompt.id for prompt in paired),
        tuple(prompt.family for prompt in paired),
        per_token[:, : len(paired)] - per_token[:, len(paired) :],
    )
