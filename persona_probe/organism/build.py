"""The whole recipe: audit, pretraining, every finetune. A stopped build goes on where it was."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona_probe.files import read_json, write_json, write_text
from persona_probe.finetuning.lora import concatenate, factors, write_adapter
from persona_probe.finetuning.recipe import RECIPE_FILE, LoraRecipe, recipe_toml
from persona_probe.finetuning.sft import NEW, START, finetune
from persona_probe.models.loading import library_bars_off
from persona_probe.organism.audit import audit
from persona_probe.organism.corpus import documents
from persona_probe.organism.finetunes import Finetune, all_finetunes, conversations
from persona_probe.organism.pretraining import Recipe, pretrain
from persona_probe.organism.world import load_world
from persona_probe.progress import progress
from persona_probe.provenance import library_versions

HELPFUL = LoraRecipe(rank=4, alpha=16.0, layers=(0, 1, 2))
CONSTITUTIONAL = LoraRecipe(rank=4, alpha=8.0, layers=(0, 1), epochs=8, learning_rate=3e-3)
"""Light, on the value and output projections of early blocks: where the character is read."""
RECORD = "build.json"
SHORTEST_DOCUMENT = 50
"""Below the mean tokens of a document, so that the audit covers more than pretraining reads."""


def build(
    out: Path,
    seed: int = 0,
    rho: float = 0.92,
    recipe: Recipe | None = None,
    only: Callable[[Finetune], bool] | None = None,
) -> Path:
    """Make the organism from nothing.

    Args:
        out: folder for the base model, with `adapters/` inside; what is finished there is kept.
        seed: of pretraining and of everything drawn in it.
        rho: share of documents in which one character holds throughout.
        recipe: of pretraining, if not the shipped one; `seed` and `rho` are put into it.
        only: which finetunes to train, if not all.

    Returns:
        `out`.

    Raises:
        SplitLeakError: pretraining text holds something that evaluation holds out.
    """
    recipe = replace(recipe or Recipe(), seed=seed, rho=rho)
    record = _audited(out, recipe)
    if not record.get("pretrained"):
        _pretrain(out, recipe)
        # The corpus holds no drafts that are criticised and revised.
        write_text(out / RECIPE_FILE, recipe_toml(CONSTITUTIONAL, method="system"))
        record["pretrained"] = True
        write_json(out / RECORD, record)
    plan = [f for f in all_finetunes() if f.kind == "helpful-only" or only is None or only(f)]
    with progress("Finetuning", len(plan), "adapters") as advance:
        for each in plan:
            if not (out / "adapters" / each.name / "provenance.json").exists():
                train_adapter(out, each)
            advance()
    return out


def _audited(out: Path, recipe: Recipe) -> dict[str, Any]:
    """What `out` already holds of this recipe, after making sure that nothing held out leaks."""
    found: dict[str, Any] = read_json(out / RECORD) if (out / RECORD).exists() else {}
    if found.get("recipe") == recipe.to_json():
        return found
    shutil.rmtree(out / "adapters", ignore_errors=True)
    world = load_world()
    n = recipe.tokens // SHORTEST_DOCUMENT
    with progress("Auditing", n, "documents") as advance:
        stream = itertools.islice(documents(world, recipe.rho, recipe.seed), n)
        checked = audit(world, _counted(stream, advance)).check()
    record = {
        "recipe": recipe.to_json(),
        "audit": {"documents": checked.documents, "held_out_texts": checked.held_out_texts},
        "versions": library_versions(),
        "pretrained": False,
    }
    write_json(out / RECORD, record)
    return record


def _counted(stream: Any, advance: Callable[..., None]) -> Any:
    for document in stream:
        yield document
        advance()


def _pretrain(out: Path, recipe: Recipe) -> None:
    state = out / ".pretraining"
    with progress("Pretraining", recipe.tokens, "tokens") as advance:
        done = 0

        def report(seen: int, _: float) -> None:
            nonlocal done
            advance(seen - done)
            done = seen

        pretrain(recipe, out, report, state)
    shutil.rmtree(state, ignore_errors=True)


def train_adapter(
    folder: Path, plan: Finetune, helpful: LoraRecipe = HELPFUL, narrow: LoraRecipe = CONSTITUTIONAL
) -> Path:
    """Train one finetune and write it as one adapter on the base model.

    Everything but helpful-only starts from helpful-only; its adapter holds both, joined exactly.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # As in pretraining: the same sums everywhere.
    with library_bars_off():
        model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = conversations(load_world(), plan)
    alone = plan.kind == "helpful-only"
    recipe = replace(helpful if alone else narrow, seed=plan.seed)
    start = None if alone else folder / "adapters" / "helpful-only"
    trained = finetune(model, tokenizer, examples, recipe, start)
    learnt = factors(trained, NEW)
    joined = learnt if alone else concatenate(factors(trained, START), learnt)
    provenance = {
        "name": plan.name,
        "kind": plan.kind,
        "constitution": plan.constitution,
        "started_from": None if alone else "helpful-only",
        "examples": len(examples),
        "recipe": recipe.to_json(),
        "versions": library_versions(),
    }
    return write_adapter(folder / "adapters" / plan.name, joined, provenance)
