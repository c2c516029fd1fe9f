"""What is to be finetuned, and the plan: all that decides the result, in plain words and hashes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_probe.finetuning.launch import processes
from persona_probe.finetuning.recipe import LoraRecipe, Run
from persona_probe.models.adapters import WEIGHTS, adapter_folder
from persona_probe.models.chat import Conversation
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.provenance import content_hash, file_hash, library_versions
from persona_probe.steering.arm import Intervention

if TYPE_CHECKING:
    from persona_probe.finetuning.watching import Watch


@dataclass(frozen=True)
class Finetune:
    """What is to be trained, and on what.

    Attributes:
        ref: the model; its adapter, if any, is stood on: the new adapter holds both, joined.
        conversations: end with the reply to learn.
        recipe: what decides the result.
        held_out: whose loss is evaluated; never learnt.
        interventions: done to the residual stream in every training step.
        watch: what training is watched on.
        templated: speak through the chat template; off for models that read plain text.
        about: what else its provenance says, for instance of which control it is.
    """

    ref: ModelRef
    conversations: tuple[Conversation, ...]
    recipe: LoraRecipe
    held_out: tuple[Conversation, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    watch: "Watch | None" = None
    templated: bool = True
    about: dict[str, Any] = field(default_factory=dict)


def local_adapter(ref: ModelRef) -> Path | None:
    """The folder of the adapter that is stood on, fetched from the hub if need be."""
    return None if ref.adapter is None else adapter_folder(ref.adapter_source(ref.adapter))


def plan_of(work: Finetune, run: Run, view: ResidualModel) -> dict[str, Any]:
    """All that decides the result: equal plans make equal folders."""
    source = local_adapter(work.ref)
    return {
        "model": work.ref.label,
        "model_hash": view.model_hash,
        "chat_template_hash": view.chat_template_hash,
        "started_from": None if source is None else source.name,
        "started_from_hash": None if source is None else file_hash(source / WEIGHTS),
        "kind": "full" if work.recipe.full else "adapter",
        "data_hash": _data_hash(work.conversations),
        "examples": len(work.conversations),
        "held_out": len(work.held_out),
        "held_out_hash": _data_hash(work.held_out) if work.held_out else None,
        "recipe": work.recipe.to_json(),
        "run": run.to_json(),
        **({"processes": processes()} if processes() > 1 else {}),
        "interventions": [_described(i) for i in work.interventions],
        "watched": None if work.watch is None else _watched(work.watch),
        **work.about,
        "versions": library_versions(),
    }


def _data_hash(conversations: Sequence[Conversation]) -> str:
    return content_hash([[(m.role, m.content) for m in c.messages] for c in conversations])


def _described(intervention: Intervention) -> dict[str, Any]:
    direction = intervention.direction
    settings = {k: v for k, v in vars(intervention.operation).items() if v is not None}
    return {
        "operation": type(intervention.operation).__name__.lower(),
        "settings": {
            k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()
        },
        "persona": direction.persona,
        "schedule": intervention.when,
        "layers": [site.layer for site in intervention.where],
        "direction_sha256": hashlib.sha256(direction.raw.numpy().tobytes()).hexdigest()[:16],
    }


def _watched(watch: "Watch") -> dict[str, Any]:
    return {
        "directions": [f"{d.persona} at layer {d.site.layer}" for d in watch.directions],
        "prompts": len(watch.conversations),
        "prompts_hash": _data_hash(watch.conversations),
        "every": watch.every,
    }


def first_change(plan: dict[str, Any], found: dict[str, Any]) -> str | None:
    """The first key in which a plan that was kept is not this one; `None` where they agree."""
    as_kept = json.loads(json.dumps(plan))  # as JSON gives it back: tuples are lists there
    return next((key for key, value in as_kept.items() if found.get(key) != value), None)
