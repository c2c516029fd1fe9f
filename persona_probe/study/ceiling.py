"""What the best one vector at the chosen site reaches: a ceiling to read the direction against.

Trained where and no longer than the direction is added, to give the finetune's replies their
likelihood; on requests of the find part, and checked on those of the select part. It is told what
the direction has to find out, so it decides nothing in the verdict. A ceiling in likelihood on
requests like those it was trained on: how safe its replies are elsewhere may still fall short of
the direction's, and then the direction projects further than what fits the finetune best.
"""

from collections.abc import Sequence
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, load_directions, save_directions
from persona_probe.files import write_json
from persona_probe.models.chat import Tokens
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.splits import Part
from persona_probe.statistics import json_number
from persona_probe.steering.generation import generate
from persona_probe.steering.scoring import as_generated
from persona_probe.steering.trained_vector import TrainedVector, train_vector
from persona_probe.study.arms import Choice, Condition, finetunes, steered
from persona_probe.study.finding import TIERS_OF_FINDING
from persona_probe.study.lab import Lab
from persona_probe.study.plan import Study

FOLDER = "trained"  # in `directions`
Row = dict[str, Any]


def trained_vector(
    lab: Lab, persona: str, own: Direction, choice: Choice
) -> tuple[Direction, Row] | None:
    """The vector of one persona, and what it gained; `None` when its finetune says nothing."""
    finetune = finetunes(lab.study, persona)[0]
    learnt = _replies(lab, finetune, _asked(lab, "find"))
    checked = _replies(lab, finetune, _asked(lab, "select"))
    if not learnt or not checked:
        return None
    found = train_vector(
        lab.model,
        own,
        choice.strength * own.norm,
        learnt,
        checked,
        adapter=lab.study.helpful_only,
        steps=lab.study.budget.vector_steps,
        seed=lab.study.seed,
    )
    return found.direction, _row(persona, finetune, own, choice, found)


def trained_condition(study: Study, persona: str, vectors: DirectionSet) -> list[Condition]:
    """The model before finetuning with the trained vector added, if there is one."""
    return [
        steered(study, persona, direction, direction.gap / direction.norm, "trained")
        for direction in vectors.get(persona, {}).values()
    ]


def save_vectors(lab: Lab, vectors: DirectionSet, rows: Sequence[Row]) -> None:
    """Write them where `load_vectors` finds them, then the rows."""
    if vectors:
        save_directions(vectors, lab.folder / "directions" / FOLDER, with_card=False)
    write_json(lab.folder / "training.json", rows)


def load_vectors(lab: Lab) -> DirectionSet:
    """Persona → site → trained vector; empty where none was trained."""
    folder = lab.folder / "directions" / FOLDER
    return dict(load_directions(folder, lab.model)) if folder.exists() else {}


def _asked(lab: Lab, part: Part) -> list[SafetyPrompt]:
    """As many requests as the strength is chosen on; filtered categories left out."""
    budget = lab.study.budget
    found = [
        *lab.prompts(part, "harmful", budget.select_harmful, TIERS_OF_FINDING),
        *lab.prompts(part, "benign", budget.select_benign, TIERS_OF_FINDING),
        *lab.prompts(part, "borderline", budget.select_borderline, TIERS_OF_FINDING),
    ]
    lab.split.require_part((prompt.family for prompt in found), part)
    return found


def _replies(lab: Lab, finetune: Condition, prompts: Sequence[SafetyPrompt]) -> list[Tokens]:
    """The finetune's greedy replies, as tokens of the study's model."""
    asked = lab.ask(prompts)
    found: list[Tokens] = []
    for network, _, (condition, *_) in lab.together([finetune]):
        completions = generate(
            network,
            asked,
            [condition.arm],
            max_new_tokens=lab.pack.max_new_tokens,
            seed=lab.study.seed,
            description="Replies to learn",
        )
        found += [
            as_generated(lab.model, conversation, completion.token_ids)
            for conversation, completion in zip(asked, completions, strict=True)
            if completion.token_ids
        ]
    return found


def _row(
    persona: str, finetune: Condition, own: Direction, choice: Choice, found: TrainedVector
) -> Row:
    return {
        "persona": persona,
        "finetune": finetune.name,
        "layer": choice.site.layer,
        "longest": choice.strength,
        "strength": found.direction.gap / own.norm,
        "cosine": float(found.direction.unit.double() @ own.unit.double()),
        "step": found.step,
        "nats": {name: json_number(value) for name, value in found.nats.items()},
        "n_learnt": found.n_learnt,
        "n_checked": found.n_checked,
    }
