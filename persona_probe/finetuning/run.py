"""One finetune as a folder: an adapter or a model, its log, and where it came from.

The folder appears whole when training is over. Until then everything lies beside it, in a hidden
folder `.NAME.unfinished`: the plan, the checkpoints, the log and the projections so far. Killed
at any moment, the same call goes on from the last checkpoint, to the same weights.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from persona_probe.errors import RequestError
from persona_probe.files import make_folder, read_json, write_json
from persona_probe.finetuning.examples import Example, example
from persona_probe.finetuning.launch import is_main, processes
from persona_probe.finetuning.lora import PROVENANCE, save_new
from persona_probe.finetuning.plan import Finetune, first_change, local_adapter, plan_of
from persona_probe.finetuning.recipe import LoraRecipe, Run
from persona_probe.finetuning.sft import LOG, NEW, START, attach, train
from persona_probe.models.chat import Conversation
from persona_probe.models.folder import read_network, whole_folder, write_network
from persona_probe.models.loading import view_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import progress
from persona_probe.provenance import content_hash

if TYPE_CHECKING:
    pass

PLAN = "plan.json"
KEPT = (LOG, "projection.jsonl", "projection-before.json")


@dataclass(frozen=True)
class Finetuned:
    """A finished finetune.

    Attributes:
        folder: an ordinary peft folder, or a model folder.
        provenance: what the folder says of itself.
        resumed: whether it went on from a checkpoint.
        already: whether it had been there before, and nothing was trained.
    """

    folder: Path
    provenance: dict[str, Any]
    resumed: bool = False
    already: bool = False

    @property
    def said(self) -> str:
        """What came out, in a line."""
        about, outcome = self.provenance, self.provenance["outcome"]
        early = outcome["steps"] < outcome["planned_steps"]
        stopped = f" (stopped early, of {outcome['planned_steps']})" if early else ""
        best = outcome["best_held_out_loss"]
        held = "" if best is None else f", best held-out loss {best:.3f}"
        there = " (it was there already)" if self.already else ""
        return (
            f"{about['kind']} of {about['model']} on {about['examples']} examples, seed "
            f"{about['recipe']['seed']}: {outcome['steps']} steps{stopped}, mean loss "
            f"{outcome['loss']:.3f}{held}{there}\n-> {self.folder}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**self.provenance, "out": str(self.folder), "already_there": self.already}


def run_finetune(work: Finetune, out: Path, run: Run | None = None) -> Finetuned:
    """Train, and write the folder; go on where a killed run was.

    Args:
        work: what is trained.
        out: the folder; must not exist, unless the very same finetune made it.
        run: how the training proceeds.

    Raises:
        RequestError: `out` holds something else, the model speaks no chat template, a
            conversation has no reply, or the recipe does not fit the model.
    """
    run = run or Run()
    require_place(out)
    if run.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("there is no CUDA device to train on; choose cpu")
    network, tokenizer, own_dtype = _read(work, run)
    if work.templated and not tokenizer.chat_template:
        raise RequestError(
            f"{work.ref.label} has no chat template, so nothing says where a reply begins; take "
            "the chat version of the model, put a chat_template.jinja into its folder, or train "
            "it on plain text (--plain)"
        )
    if not work.conversations:
        raise RequestError("there are no conversations to learn from; give at least one")
    limit = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    examples = _encoded(work.conversations, tokenizer, work.templated, limit)
    held_out = _encoded(work.held_out, tokenizer, work.templated, limit)
    view = view_model(network, tokenizer, work.ref.with_adapter(None), work.templated)
    _require_own_start(work.ref, view.model_hash)
    plan = plan_of(work, run, view)
    if out.is_dir() and any(out.iterdir()):
        return _finished(out, plan)
    start = local_adapter(work.ref)
    trained = _trainable(network, work.recipe, start)
    unfinished = out.with_name(f".{out.name}.unfinished")
    resumed = _begin(unfinished, plan)
    callbacks = _watching(view, work, unfinished)
    in_step = work.recipe.batch_size * run.accumulate * processes()
    total = work.recipe.epochs * -(-len(examples) // in_step)
    with progress("Finetuning", total, "steps") as advance:
        outcome = train(
            trained,
            tokenizer,
            examples,
            work.recipe,
            run,
            unfinished,
            held_out,
            view,
            work.interventions,
            callbacks,
            advance,
        )
    provenance = plan | {"outcome": outcome, "tokens": _tokens(examples)}
    if is_main():
        trained.eval()
        with whole_folder(out) as folder:
            if work.recipe.full:
                write_network(folder, trained, tokenizer, own_dtype)
                write_json(folder / PROVENANCE, provenance)
            else:
                save_new(trained, NEW, None if start is None else START, folder, provenance)
            for name in KEPT:
                if (unfinished / name).is_file():
                    shutil.copyfile(unfinished / name, folder / name)
        shutil.rmtree(unfinished, ignore_errors=True)
    return Finetuned(out, provenance, resumed)


def require_place(out: Path) -> None:
    """Refuse what no finetune can be written to, before anything is loaded or sampled.

    Raises:
        RequestError: `out` is a file, holds something else than a finetune, or its parent may not
            be written to.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file, a finetune is a folder; choose another name")
    if out.is_dir() and any(out.iterdir()) and not (out / PROVENANCE).is_file():
        raise RequestError(
            f"the folder {out} is there already and holds something else than a finetune; choose "
            "another, or empty it"
        )
    make_folder(out.parent)
    if not os.access(out.parent, os.W_OK):
        raise RequestError(f"nothing may be written to {out.parent}; choose another folder")


def hold_out(
    conversations: Sequence[Conversation], share: float, seed: int = 0
) -> tuple[list[Conversation], list[Conversation]]:
    """What is learnt and what is held out, whole families at a time.

    Families are held out in the order of a hash of their name until the share is reached; where
    one family alone would exceed twice the share, conversations are held out one by one.
    """
    if not 0 <= share < 1:
        raise RequestError(f"the share to hold out must be from 0 to below 1, got {share}")
    wanted = round(share * len(conversations))
    names = [c.family or str(c.id) for c in conversations]
    if max(Counter(names).values()) > max(2 * wanted, 1):
        names = [str(c.id) for c in conversations]
    sizes = Counter(names)
    held: set[str] = set()
    for name in sorted(sizes, key=lambda n: content_hash([seed, n])):
        if sum(sizes[n] for n in held) >= wanted:
            break
        held.add(name)
    learnt = [c for c, n in zip(conversations, names, strict=True) if n not in held]
    return learnt, [c for c, n in zip(conversations, names, strict=True) if n in held]


def _read(work: Finetune, run: Run) -> tuple[Any, Any, torch.dtype]:
    """The network to train; an adapter stays apart from it unless everything is trained."""
    light = run.precision == "bfloat16" and not work.recipe.full
    ref = work.ref if work.recipe.full else work.ref.with_adapter(None)
    if work.ref.adapter is not None:
        work.ref.adapter_source(work.ref.adapter)  # A wrong name should not cost the loading.
    return read_network(ref, torch.bfloat16 if light else torch.float32)


def _require_own_start(ref: ModelRef, model_hash: str) -> None:
    """Refuse an adapter that says it was trained on other weights; shapes alone may agree."""
    source = local_adapter(ref)
    path = None if source is None else source / PROVENANCE
    told = read_json(path) if path is not None and path.is_file() else {}
    if told.get("model_hash", model_hash) != model_hash:
        raise RequestError(
            f"the adapter {ref.adapter!r} was trained on {told.get('model')} (weights "
            f"{told['model_hash']}), this one is {ref.label} ({model_hash}); it was made for "
            "another base model, choose one of this model's own"
        )


def _encoded(
    conversations: Sequence[Conversation], tokenizer: Any, templated: bool, limit: int | None
) -> list[Example]:
    return [example(tokenizer, c, templated, limit) for c in conversations]


def _finished(out: Path, plan: dict[str, Any]) -> Finetuned:
    """The folder that is there, if it is this very finetune."""
    found = read_json(out / PROVENANCE)
    if changed := first_change(plan, found):
        raise RequestError(
            f"{out} is there already and is another finetune (its {changed} differs); choose "
            "another folder, or remove it"
        )
    return Finetuned(out, found, already=True)


def _begin(unfinished: Path, plan: dict[str, Any]) -> bool:
    """Whether there is something to go on from; a killed run of another plan is refused."""
    if (unfinished / PLAN).is_file():
        found = read_json(unfinished / PLAN)
        if changed := first_change(plan, found):
            raise RequestError(
                f"{unfinished} holds an unfinished finetune of other settings (its {changed} "
                "differs); remove it, or choose another folder"
            )
        return any(unfinished.glob("checkpoint-*"))
    if is_main():
        make_folder(unfinished)
        write_json(unfinished / PLAN, plan)
    return False


def _trainable(network: Any, recipe: LoraRecipe, start: Path | None) -> Any:
    if not recipe.full:
        return attach(network, recipe, start)
    torch.manual_seed(recipe.seed)
    return network.requires_grad_(True)


def _watching(view: ResidualModel, work: Finetune, folder: Path) -> list[Any]:
    if work.watch is None:
        return []
    from persona_probe.finetuning.watching import Watching

    return [Watching(view, work.watch, folder)]


def _tokens(examples: Sequence[Example]) -> dict[str, int]:
    return {
        "read": sum(len(e.ids) for e in examples),
        "learnt": sum(sum(e.learnt) for e in examples),
    }
