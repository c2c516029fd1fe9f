"""Supervised finetuning of a chat model: loss on what the assistant says, nothing else.

Works on any model with a chat template. The reply's place comes from one joint tokenisation
(`models.chat`), so no boundary is off by a merge. The loop is transformers' Trainer: with
`accelerate launch` it runs on several accelerators.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from persona_probe.errors import RequestError
from persona_probe.files import write_jsonl
from persona_probe.finetuning.examples import Example, example, packed_batch
from persona_probe.finetuning.recipe import ALL_LINEAR, LoraRecipe, Run
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.arm import Intervention

if TYPE_CHECKING:
    from peft import PeftModel

NEW, START = "new", "start"
LOG = "log.jsonl"
LINEAR = ("Linear", "Conv1D")


def module_names(model: Any, recipe: LoraRecipe) -> list[str]:
    """Full names of the projections to adapt.

    Raises:
        RequestError: the model has none of them.
    """
    wanted, seen = [], set()
    for name, module in model.named_modules():
        parts = name.split(".")
        numbers = [int(p) for p in parts if p.isdigit()]
        chosen = recipe.layers is None or (numbers and numbers[0] in recipe.layers)
        linear = type(module).__name__ in LINEAR and bool(numbers)
        if linear:
            seen.add(parts[-1])
        named = parts[-1] in recipe.targets or (linear and ALL_LINEAR in recipe.targets)
        if named and chosen:
            wanted.append(name)
    if not wanted:
        where = "" if recipe.layers is None else f" in blocks {list(recipe.layers)}"
        raise RequestError(
            f"the model has no projections named {', '.join(recipe.targets)}{where}; "
            f"it has {', '.join(sorted(seen))}"
        )
    return wanted


def attach(model: Any, recipe: LoraRecipe, start: Path | None = None) -> "PeftModel":
    """Put a fresh trainable adapter on the model, on top of a frozen one if `start` is given.

    Raises:
        RequestError: there is nothing to adapt, `start` was made for another base model, or a
            DoRA adapter is to stand on another one.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if recipe.dora and start is not None:
        raise RequestError(
            "a DoRA adapter rescales whole weights, so it cannot be joined with the adapter that "
            "it stands on; train plain LoRA, or merge that adapter into a model folder first"
        )
    torch.manual_seed(recipe.seed)
    names = module_names(model, recipe)
    convolutions = any(type(model.get_submodule(n)).__name__ == "Conv1D" for n in names)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=names,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        fan_in_fan_out=convolutions,
    )
    with warnings.catch_warnings():
        # peft asks transformers whether gradients are checkpointed under a deprecated name.
        warnings.simplefilter("ignore", FutureWarning)
        if start is None:
            return get_peft_model(model, config, adapter_name=NEW)
        try:
            stacked = PeftModel.from_pretrained(model, str(start), adapter_name=START)
        except (ValueError, RuntimeError, KeyError) as error:
            said = str(error).strip().split("\n")[0][:200]
            raise RequestError(
                f"the adapter {start} does not fit this model; it was made for another base "
                f"model ({said})"
            ) from error
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
    run: Run | None = None,
) -> "PeftModel":
    """Train an adapter on conversations that end with the reply to learn, in memory.

    Args:
        model: a transformers causal language model; it is wrapped, its own weights stay.
        tokenizer: its tokenizer, with a chat template.
        conversations: what to learn.
        recipe: how.
        start: adapter folder to stand on; it stays frozen (see `lora.concatenate` for one adapter
            that holds both).
        advance: called with 1 after every step.
        run: how the run proceeds; on the processor, if not given.

    Returns:
        The wrapped model with the trained adapter `new` (and `start`) active.
    """
    examples = [example(tokenizer, c) for c in conversations]
    trained = attach(model, recipe, start)
    with tempfile.TemporaryDirectory() as folder:
        options = run or Run(device="cpu", save_every=0)
        train(trained, tokenizer, examples, recipe, options, Path(folder), advance=advance)
    return trained.eval()


def train(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    recipe: LoraRecipe,
    run: Run,
    folder: Path,
    held_out: Sequence[Example] = (),
    view: ResidualModel | None = None,
    interventions: Sequence[Intervention] = (),
    callbacks: Sequence[Any] = (),
    advance: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Run the trainer over examples, from the last checkpoint in `folder` on.

    Args:
        model: with what is to be trained requiring gradients; changed in place.
        tokenizer: whose padding is used.
        examples: to learn.
        recipe: what decides the result.
        run: how it proceeds.
        folder: for checkpoints and the log; on the same call a killed run goes on.
        held_out: conversations whose loss is evaluated and never learnt.
        view: the model as a `ResidualModel`, needed for interventions.
        interventions: done to the residual stream in every training step, not in evaluations.
        callbacks: further transformers callbacks.
        advance: called with the number of steps done since the last call.

    Returns:
        Steps, final loss, and whether it stopped early.
    """
    from transformers import EarlyStoppingCallback

    from persona_probe.finetuning.trainer import (
        Following,
        ResponseTrainer,
        arguments,
        newest_checkpoint,
    )

    evaluates = bool(held_out)
    following: list[Any] = [
        Following(advance, lambda rows: write_jsonl(folder / LOG, rows)),
        *callbacks,
    ]
    if not evaluates and (run.patience is not None or run.evaluate_every is not None):
        raise RequestError(
            "evaluating while training, and stopping early, need held-out conversations: hold a "
            "share out, or give others"
        )
    if run.patience is not None:
        following.append(EarlyStoppingCallback(run.patience))
    if run.packing:
        _require_packable(model, examples[:2])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    trainer = ResponseTrainer(
        model,
        arguments(recipe, run, folder, evaluates),
        examples,
        held_out,
        recipe,
        pad,
        run.packing,
        following,
        view,
        interventions,
    )
    checkpoint = newest_checkpoint(folder)
    outcome = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.accelerator.wait_for_everyone()  # Others may still write to the folder.
    return {
        "steps": int(outcome.global_step),
        "planned_steps": int(trainer.state.max_steps),
        "loss": float(outcome.training_loss),
        "best_held_out_loss": trainer.state.best_metric,
    }


def _require_packable(model: Any, examples: Sequence[Example]) -> None:
    """Raise unless conversations that lie end to end do not see each other; tried out."""
    model.eval()
    device = next(model.parameters()).device
    packed = packed_batch(examples)
    alone = []
    with torch.no_grad():
        for each in examples:
            ids = torch.tensor([each.ids], device=device)
            alone.append(model(input_ids=ids, use_cache=False).logits[0])
        together = model(
            input_ids=packed["input_ids"].to(device),
            position_ids=packed["position_ids"].to(device),
            use_cache=False,
        ).logits[0]
    expected = torch.cat(alone).float()
    gap = (together.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    tolerance = 1e-3 if expected.dtype == model.dtype else 5e-2
    if not bool((gap < tolerance).all()):
        raise RequestError(
            "this architecture lets packed conversations see each other (their logits differ by "
            f"{float(gap.max()):.2g} of their size); leave packing off"
        )
