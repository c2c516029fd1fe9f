"""transformers' Trainer, with this package's loss, order of examples, and checkpoints of adapters.

A subclass, because Trainer is a base class: importing this module costs what transformers costs,
so it is imported late.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import (  # noqa: TID253
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from persona_probe.files import read_tensors, write_tensors
from persona_probe.finetuning.examples import (
    UNLEARNT,
    Example,
    packed_batch,
    padded_batch,
    positions_of,
)
from persona_probe.finetuning.recipe import LoraRecipe, Run
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.arm import Intervention
from persona_probe.steering.steer import steer

LOG_EVERY_S = 2.0
TRAINED = "trained.safetensors"  # of an adapter's checkpoint
TARGETS = "shift_labels"  # transformers' name for targets that are shifted already
WHERE = ("positions", "prompt_lengths", "rows", "columns")


class Order(Sampler[int]):
    """The order of examples: epoch k has the k-th permutation of one generator.

    A function of seed and epoch alone, so that a resumed run goes on where it was.
    """

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._seed, self._epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the beginning of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        for _ in range(self._epoch):
            torch.randperm(self._n, generator=generator)
        yield from torch.randperm(self._n, generator=generator).tolist()


class ResponseTrainer(Trainer):  # type: ignore[misc]
    """Trains on the learnt tokens of examples, mean over all of them in a step."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        recipe: LoraRecipe,
        pad: int,
        packing: bool,
        callbacks: Sequence[TrainerCallback],
        view: ResidualModel | None = None,
        interventions: Sequence[Intervention] = (),
    ) -> None:
        self._recipe, self._pad, self._packing = recipe, pad, packing
        self._view, self._interventions = view, tuple(interventions)
        super().__init__(
            model=model,
            args=args,
            data_collator=self._batch,
            train_dataset=list(examples),
            eval_dataset=list(held_out) or None,
            callbacks=list(callbacks),
        )
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)

    def _batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = packed_batch(examples) if self._packing else padded_batch(examples, self._pad)
        batch[TARGETS] = batch["labels"]
        if self._interventions:
            batch |= self._places(examples)
        return batch

    def _places(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Where each token of each conversation lies in the batch, for schedules."""
        positions = positions_of(examples)
        rows, columns = torch.zeros_like(positions), positions.clamp_min(0)
        if self._packing:
            starts = torch.tensor([len(e.ids) for e in examples]).cumsum(0)[:-1]
            columns = columns + torch.cat([torch.zeros(1, dtype=torch.long), starts])[:, None]
        else:
            rows = rows + torch.arange(len(examples))[:, None]
        lengths = torch.tensor([e.prompt_length for e in examples])
        return dict(zip(WHERE, (positions, lengths, rows, columns), strict=True))

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return Order(len(train_dataset or self.train_dataset), self._recipe.seed)

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW without weight decay on what is trained."""
        if self.optimizer is None:
            trained = [p for p in (model or self.model).parameters() if p.requires_grad]
            rate = self._recipe.learning_rate
            self.optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """10% linear warm-up, then linear decay to zero."""
        if self.lr_scheduler is None:
            rate = warmed_up(num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> Tensor:
        """One batch, under the interventions; they hold during the backward pass too.

        With gradient checkpointing that pass runs the blocks a second time.
        """
        where = [inputs.pop(name) for name in WHERE] if self._interventions else []
        with self._steered(where):
            loss: Tensor = super().training_step(model, inputs, *rest)
        return loss

    def _steered(self, where: list[Tensor]) -> Any:
        if self._view is None or not where:
            return nullcontext()
        positions, lengths, rows, columns = (tensor.cpu() for tensor in where)
        return steer(self._view, self._interventions, positions, lengths, (rows, columns))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy in float32 over the learnt tokens, divided by their number in the step."""
        asked = {k: v for k, v in inputs.items() if k not in ("labels", TARGETS, *WHERE)}
        targets = inputs[TARGETS]
        outputs = model(**asked, use_cache=False)
        logits = outputs.logits if self._packing else outputs.logits[:, :-1]
        learnt = targets != UNLEARNT
        each = nn.functional.cross_entropy(
            logits[learnt].float(), targets[learnt], reduction="none"
        )
        count = learnt.sum() if num_items_in_batch is None else num_items_in_batch
        # Gradients of several processes are averaged; the count is of all of them together.
        loss = each.sum() / count * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Of an adapter's run, what is trained; of a full one, the whole model."""
        if self._recipe.full:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
            write_tensors(folder / TRAINED, trained, {"format": "pt"})

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self._recipe.full:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._fill(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self._recipe.full:
            super()._load_best_model()
        else:
            self._fill(Path(str(self.state.best_model_checkpoint)))

    def _fill(self, checkpoint: Path) -> None:
        tensors, _ = read_tensors(checkpoint / TRAINED)
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in tensors.items():
                parameters[name].copy_(tensor)


def warmed_up(steps: int) -> Callable[[int], float]:
    """The share of the peak rate at each step."""
    return lambda step: min((step + 1) / max(1, steps // 10), (steps - step) / steps)


def arguments(recipe: LoraRecipe, run: Run, folder: Path, evaluates: bool) -> TrainingArguments:
    """Trainer's settings for a recipe and a run; whatever it would report by itself is off."""
    stops = evaluates and run.patience is not None
    by_steps = {"steps": run.evaluate_every} if run.evaluate_every else None
    saves = run.save_every != 0
    settings: dict[str, Any] = {
        "save_strategy": ("steps" if run.save_every else "epoch") if saves else "no",
        "eval_strategy": ("steps" if by_steps else "epoch") if evaluates else "no",
    }
    if run.save_every:
        settings["save_steps"] = run.save_every
    if evaluates and by_steps:
        settings["eval_steps"] = run.evaluate_every
    if stops:  # The best is among what was both evaluated and saved.
        settings |= {
            "save_strategy": settings["eval_strategy"],
            "save_steps": run.evaluate_every or 500,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    if run.gradient_checkpointing:
        # Called gradient_checkpointing in older releases.
        renamed = hasattr(TrainingArguments, "activation_checkpointing")
        name = "activation_checkpointing" if renamed else "gradient_checkpointing"
        settings |= {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=run.accumulate,
        learning_rate=recipe.learning_rate,
        max_grad_norm=1.0,
        seed=recipe.seed,
        bf16=run.precision == "bfloat16",
        use_cpu=run.device == "cpu" or not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        prediction_loss_only=True,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        **settings,
    )


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end: the trainer's state comes last in it."""
    whole = []
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            whole.append((int(json.loads(path.read_text())["global_step"]), path.parent))
        except (ValueError, KeyError):
            continue
    return max(whole)[1] if whole else None


class Following(TrainerCallback):  # type: ignore[misc]
    """Tells a progress bar, and keeps the log on disk while the run goes on."""

    def __init__(
        self, advance: Callable[[float], None] | None, write: Callable[[list[Any]], object]
    ) -> None:
        self._advance, self._write, self._written = advance, write, 0.0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if self._advance is not None and state.global_step:
            self._advance(state.global_step)

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        if self._advance is not None:
            self._advance(1)

    def on_log(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        # The file is written anew each time, so not at every step.
        if time.monotonic() - self._written > LOG_EVERY_S:
            self._keep(state)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._keep(state)

    def _keep(self, state: Any) -> None:
        if state.is_world_process_zero:
            self._write([row for row in state.log_history if _plain(row)])
            self._written = time.monotonic()


def _plain(row: dict[str, Any]) -> bool:
    """A row of a step; the summary of the whole run, which holds times, is left out."""
    numbers = [v for v in row.values() if isinstance(v, float)]
    return "train_runtime" not in row and all(math.isfinite(v) for v in numbers)
