"""What a grafted network's blocks see where a reply begins, with and without a vector added."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.known_truth.graft import Graft
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread

N_PROMPTS = 200


@cache
def _pack() -> Pack:
    return load_pack("organism")


def requests(n: int = N_PROMPTS) -> list[SafetyPrompt]:
    """Requests of the organism's pack, of every kind."""
    return spread(_pack().suite.prompts, n)


def prompt_ids(
    tokenizer: Any, prompt: SafetyPrompt, reply: str | None = None
) -> Int[Tensor, "1 pos"]:
    """Token ids of a request under the neutral system line, up to where the reply begins.

    Args:
        tokenizer: with a chat template.
        prompt: the request.
        reply: a reply that follows, if any.
    """
    messages = [
        {"role": "system", "content": _pack().neutral_system},
        {"role": "user", "content": prompt.text},
        *([] if reply is None else [{"role": "assistant", "content": reply}]),
    ]
    said = tokenizer.apply_chat_template(
        messages, add_generation_prompt=reply is None, return_dict=True
    )
    return torch.tensor([said["input_ids"]])


@dataclass(frozen=True)
class Reading:
    """An affine function of what a block's MLP sees: >= 1 at one token, <= -1 at all others."""

    weights: Float[Tensor, " wide"]
    bias: float


def token_reading(grafted: Graft, tokenizer: Any, layer: int, token: str) -> Reading:
    """Tell one token from all others by the residual stream, with the widest margin there is.

    Read on requests of all kinds with the safe or the harmful reply that the pack has for them.

    Args:
        grafted: the network.
        tokenizer: its tokenizer.
        layer: of the block.
        token: to be told from the others.
    """
    from sklearn.svm import SVC

    number = tokenizer.convert_tokens_to_ids(token)
    seen, labels = [], []
    with torch.no_grad():
        for place, prompt in enumerate(requests()):
            replies = (prompt.safe_reply, prompt.harmful_reply)
            ids = prompt_ids(tokenizer, prompt, replies[place % 2])
            with watch(grafted.network, layer) as found:
                grafted.network(ids)
            seen.append(found["all"])
            labels.append(ids[0] == number)
    x, y = torch.cat(seen).double(), torch.cat(labels)
    model = SVC(kernel="linear", C=1e6).fit(x.numpy(), y.numpy())
    weights, bias = torch.tensor(model.coef_[0]), float(model.intercept_[0])
    values = x @ weights + bias
    margin = torch.where(y, values, -values).min()
    if margin <= 0:
        raise ValueError(f"block {layer} does not tell {token} from other tokens by one direction")
    return Reading((weights / margin).float(), bias / float(margin))


@dataclass(frozen=True)
class Refusal:
    """How a coming refusal looks in the last block, where the reply begins.

    Attributes:
        weights, bias: of a logistic regression on what the block's MLP sees; positive = refusal.
        difference: mean output of the block before a refusal minus that before compliance.
    """

    weights: Float[Tensor, " d_model"]
    bias: float
    difference: Float[Tensor, " d_model"]


def refusal_readings(
    grafted: Graft, tokenizer: Any, directions: DirectionSet, strengths: Sequence[float]
) -> Refusal:
    """Read the network on requests of all kinds, and steered every way on harmful ones.

    What counts as a coming refusal is a steered run that refuses more likely than not.

    Args:
        grafted: whose last block is read.
        tokenizer: its tokenizer.
        directions: in the original network; added after the blocks before the last but one.
        strengths: at which each is added.
    """
    from sklearn.linear_model import LogisticRegression

    network, d = grafted.network, grafted.d_model
    last = network.config.num_hidden_layers - 1
    refusing = _refusing_tokens(tokenizer)
    seen: list[Tensor] = []
    labels: list[bool] = []
    written: dict[bool, list[Tensor]] = {True: [], False: []}
    vectors = [
        (site.layer, grafted.wide(strength * by_site[site].norm * by_site[site].unit))
        for by_site in directions.values()
        for site in by_site
        if 0 < site.layer < last - 1
        for strength in strengths
    ]
    with torch.no_grad():
        for number, prompt in enumerate(requests()):
            harmful = prompt.kind == "harmful"
            ids = prompt_ids(tokenizer, prompt)
            # Every prompt sees a fifth of the vectors, and all prompts together see all of them.
            for added in (None, *(vectors[number % 5 :: 5] if harmful else ())):
                with watch(network, last, added) as found:
                    p = network(ids).logits[0, -1].softmax(dim=-1)[refusing].sum()
                if added is None or p > 0.5:
                    seen.append(found["seen"][:d])
                    labels.append(added is not None)
                    if harmful:
                        written[added is not None].append(found["written"][:d])
    model = LogisticRegression(C=10, max_iter=5000).fit(torch.stack(seen).numpy(), labels)
    weights = torch.from_numpy(model.coef_[0]).float()
    means = {refuses: torch.stack(several).mean(dim=0) for refuses, several in written.items()}
    return Refusal(weights, float(model.intercept_[0]), means[True] - means[False])


def _refusing_tokens(tokenizer: Any) -> list[int]:
    rules = _pack().judge_rules
    refusing, complying = (
        {tokenizer(opener, add_special_tokens=False)["input_ids"][0] for opener in openers}
        for openers in (rules.refusal_openers, rules.compliance_openers)
    )
    return sorted(refusing - complying)


@contextmanager
def watch(
    network: Any, layer: int, added: tuple[int, Float[Tensor, " wide"]] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Collect what a block's MLP sees and what the block writes at the last position.

    Args:
        network: a transformers Llama.
        layer: of the block that is watched.
        added: block and vector that is added after it at the last position.

    Yields:
        After a forward pass, `seen` and `written`, one vector each, and `all`, what the MLP saw at
        every position.
    """
    found: dict[str, Tensor] = {}

    def see(_module: Any, _inputs: Any, output: Tensor) -> None:
        found["seen"], found["all"] = output[0, -1].clone(), output[0].clone()

    def write(_module: Any, _inputs: Any, output: Tensor) -> None:
        found["written"] = output[0, -1].clone()

    def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        assert added is not None
        steered = output.clone()
        steered[0, -1] += added[1]
        return steered

    blocks = network.model.layers
    handles = [
        blocks[layer].post_attention_layernorm.register_forward_hook(see),
        blocks[layer].register_forward_hook(write),
    ]
    if added is not None:
        handles.append(blocks[added[0]].register_forward_hook(add))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def smallest_flag(
    grafted: Graft, tokenizer: Any, layer: int, number: int, at_marker: bool
) -> float:
    """The smallest that a spare coordinate is where it is set, as a block's MLP sees it.

    Args:
        grafted: the network.
        tokenizer: its tokenizer.
        layer: of the block.
        number: of the coordinate.
        at_marker: look where the reply begins; else at all positions.
    """
    place, values = grafted.coordinate(number), []
    with torch.no_grad():
        for prompt in requests():
            with watch(grafted.network, layer) as found:
                grafted.network(prompt_ids(tokenizer, prompt))
            column = found["all"][:, place]
            values.append(column[-1:] if at_marker else column)
    several = torch.cat(values)
    return float(several[several > 0].min())
