"""Supervised finetuning of a chat model with LoRA: loss on what the assistant says, nothing else.

Works on any model with a chat template. The reply's place comes from one joint tokenisation
(`models.chat`), so no boundary is off by a merge.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, encode
from persona_probe.models.rendering import ChatFormat

if TYPE_CHECKING:
    from peft import PeftModel

NEW, START = "new", "start"


@dataclass(frozen=True)
class LoraRecipe:
    """How an adapter is trained.

    Attributes:
        rank: of each factor pair. alpha: LoRA's numerator; the update is scaled by alpha / rank.
        targets: names of the projections to adapt, e.g. `v_proj`.
        layers: block numbers; `None` adapts all of them.
        epochs: passes over the conversations. batch_size: conversations per step.
        learning_rate: peak; 10% linear warm-up, then linear decay to zero.
        seed: of the factors' initial values and of the order of conversations.
    """

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("v_proj", "o_proj")
    layers: tuple[int, ...] | None = None
    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-3
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation; `learnt[i]` says whether predicting `ids[i]` is trained."""

    ids: list[int]
    learnt: list[bool]


def example(tokenizer: Any, conversation: Conversation) -> Example:
    """Mark the tokens of the last reply, and the one that ends it, as learnt.

    Without the ending mark a finetuned model would not know when to stop.

    Raises:
        RequestError: the conversation does not end with an assistant's reply.
    """
    tokens = encode(ChatFormat(tokenizer), conversation, add_generation_prompt=False)
    if tokens.response is None:
        raise RequestError(
            f"conversation {conversation.id!r} does not end with an assistant message; "
            "supervised finetuning needs the reply it should learn"
        )
    stop = min(tokens.response.stop + 1, len(tokens.ids))
    learnt = [tokens.response.start <= i < stop for i in range(len(tokens.ids))]
    return Example(tokens.ids, learnt)


def collate(
    examples: Sequence[Example], pad: int
) -> tuple[Int[Tensor, "example pos"], Float[Tensor, "example pos"], Int[Tensor, "example pos"]]:
    """Right-padded ids, the loss mask, and the attention mask."""
    width = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), width), pad)
    mask, attention = torch.zeros(len(examples), width), torch.zeros(ids.shape, dtype=torch.long)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = torch.tensor(e.learnt, dtype=torch.float32)
        attention[row, : len(e.ids)] = 1
    return ids, mask, attention


def _steps(
    examples: Sequence[Example], recipe: LoraRecipe, pad: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for first in range(0, len(order), recipe.batch_size):
            picked = [examples[i] for i in order[first : first + recipe.batch_size]]
            yield collate(picked, pad)


def _module_names(model: Any, recipe: LoraRecipe) -> list[str]:
    """Full names of the projections to adapt.

    Raises:
        RequestError: the model has none of them.
    """
    wanted = []
    for name, _ in model.named_modules():
        parts = name.split(".")
        numbers = [int(p) for p in parts if p.isdigit()]
        chosen = recipe.layers is None or (numbers and numbers[0] in recipe.layers)
        if parts[-1] in recipe.targets and chosen:
            wanted.append(name)
    if not wanted:
        raise RequestError(
            f"the model has no projections named {', '.join(recipe.targets)} in blocks "
            f"{recipe.layers or 'all'}; name the ones it has"
        )
    return wanted


def attach(model: Any, recipe: LoraRecipe, start: Path | None = None) -> "PeftModel":
    """Put a fresh trainable adapter on the model, on top of a frozen one if `start` is given."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=_module_names(model, recipe),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers whether gradients are checkpointed under a deprecated name.
        warnings.simplefilter("ignore", FutureWarning)
        if start is None:
            return get_peft_model(model, config, adapter_name=NEW)
        stacked = PeftModel.from_pretrained(model, str(start), adapter_name=START)
        stacked.add_adapter(NEW, config)
    stacked.base_model.set_adapter([START, NEW])
    for name, parameter in stacked.named_parameters():
        parameter.requires_grad_(f".{NEW}." in name)
    return stacked


def finetune(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    recipe: LoraRecipe,
    start: Path | None = None,
    advance: Callable[[float], None] | None = None,
) -> "PeftModel":
    """Train an adapter on conversations that end with the reply to learn.

    Args:
        model: a transformers causal language model; it is wrapped, its own weights stay.
        tokenizer: its tokenizer, with a chat template.
        conversations: what to learn.
        recipe: how.
        start: adapter folder to stand on; it stays frozen (see `lora.concatenate` for one adapter
            that holds both).
        advance: called with 1 after every step.

    Returns:
        The wrapped model with the trained adapter `new` (and `start`) active.
    """
    examples = [example(tokenizer, c) for c in conversations]
    peft_model = attach(model, recipe, start)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    trained = [p for p in peft_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)
    total = recipe.epochs * -(-len(examples) // recipe.batch_size)
    peft_model.train()
    for step, (ids, mask, attention) in enumerate(_steps(examples, recipe, pad)):
        rate = min((step + 1) / max(1, total // 10), (total - step) / total)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        device = peft_model.device
        ids, mask, attention = ids.to(device), mask.to(device), attention.to(device)
        logits = peft_model(input_ids=ids, attention_mask=attention, use_cache=False).logits
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
        )
        learnt = mask[:, 1:].flatten()
        torch.autograd.backward((each * learnt).sum() / learnt.sum())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if advance:
            advance(1)
    return peft_model.eval()
