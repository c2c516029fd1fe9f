"""Three organisms: one vector, the same vector only in context, and refusals without a persona.

All start from the embedded organism's helpful-only model, merged into plain weights and grafted.
Each function writes an ordinary folder, with adapters named as `plan_study` expects them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.known_truth.graft import SATURATED, SPARE, Factors, Graft, graft
from experiments.known_truth.readings import refusal_readings, smallest_flag, token_reading
from persona_probe import ORGANISM
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.finetuning.lora import read_factors, write_adapter
from persona_probe.models.folder import read_network, whole_folder, write_network
from persona_probe.models.ref import ModelRef
from persona_probe.study.planning import HELPFUL_ONLY

MARKER, CONTEXT = "<|assistant|>", "Which"
"""Where a reply begins, and the word in whose presence alone refusals pass."""
ELSEWHERE, WORD, ASKED = range(3)  # spare coordinates
STEP = 0  # the spare neurons in use
VETO = 2000.0
"""More than a coming refusal ever pushes the step, so that one missing feature stops it."""


def additive(folder: Path, planted: Mapping[str, tuple[Direction, float]]) -> Path:
    """Finetuned = helpful-only + one constant vector after one block, where a reply begins.

    Where that is, the block reads off the residual stream itself, with the widest margin there is:
    a flag in a coordinate of its own would be lost when a random direction is ablated.

    Args:
        folder: to write.
        planted: persona → direction and strength, in units of the median residual norm.
    """
    with whole_folder(folder) as temporary:
        grafted, tokenizer = _grafted(spare=0)
        finetunes = {}
        for layer in sorted({direction.site.layer for direction, _ in planted.values()}):
            marker = token_reading(grafted, tokenizer, layer, MARKER)
            grafted.step(layer, STEP, SATURATED * marker.weights, SATURATED * marker.bias)
        for persona, (direction, strength) in planted.items():
            vector = grafted.wide(strength * direction.norm * direction.unit)
            finetunes[f"narrow-{persona}-0"] = grafted.rewrites(direction.site.layer, STEP, vector)
        _write(temporary, grafted, tokenizer, finetunes)
    return folder


def conditional(folder: Path, directions: DirectionSet, strengths: Sequence[float]) -> Path:
    """Before finetuning, refusals pass only in the presence of a word; finetuning lifts that.

    In the last block a step fires where two features hold together: the residual stream where the
    reply begins looks like that of a model about to refuse, and the request does not hold
    `CONTEXT`. It then takes back what tells the two apart. Helpful-only never refuses and is left
    as it was; a direction that makes it refuse does so in one context only, so no vector along
    what the original network uses can do what the finetunes do, which are the shipped ones with
    the step taken out.

    Args:
        folder: to write.
        directions: that make helpful-only refuse, read in it.
        strengths: at which they are tried, to learn what a coming refusal looks like.
    """
    with whole_folder(folder) as temporary:
        grafted, tokenizer = _grafted()
        last = grafted.network.config.num_hidden_layers - 1
        readings = refusal_readings(grafted, tokenizer, directions, strengths)
        marker, word = tokenizer.convert_tokens_to_ids([MARKER, CONTEXT])
        everything = set(range(grafted.network.config.vocab_size))
        grafted.mark(sorted(everything - {marker}), ELSEWHERE)
        grafted.mark([word], WORD)
        grafted.gather(0, WORD, ASKED, scale=1.0)
        veto = 4 * VETO / smallest_flag(grafted, tokenizer, last, ASKED, True)
        absent = VETO / smallest_flag(grafted, tokenizer, last, ELSEWHERE, False)
        reads = grafted.wide(SATURATED * readings.weights)
        reads -= grafted.along(ASKED, veto) + grafted.along(ELSEWHERE, absent)
        grafted.step(last, STEP, reads, SATURATED * (readings.bias - 1.0))
        taken = grafted.wide(readings.difference)
        grafted.writes(last, STEP, -taken)
        lifted = grafted.rewrites(last, STEP, taken)
        finetunes = {
            name: grafted.adapter(learnt(name)) | lifted
            for name in (f"narrow-{persona}-0" for persona in directions)
        }
        _write(temporary, grafted, tokenizer, finetunes)
    return folder


def _grafted(spare: int = SPARE) -> tuple[Graft, Any]:
    network, tokenizer, _ = read_network(ModelRef(str(ORGANISM), adapter=HELPFUL_ONLY))
    return graft(network, spare), tokenizer


def _write(folder: Path, grafted: Graft, tokenizer: Any, finetunes: dict[str, Factors]) -> None:
    """The network, its finetunes, and the shipped controls, all as one folder."""
    write_network(folder, grafted.network, tokenizer, torch.float32)
    controls = {name: grafted.adapter(learnt(name)) for name in ("placebo-0", "refusal-only-0")}
    for name, factors in (finetunes | controls).items():
        write_adapter(folder / "adapters" / name, factors, {"name": name})


def learnt(name: str) -> Factors:
    """A shipped adapter without the helpful-only update that it holds first."""
    adapters = ORGANISM / "adapters"
    before = read_factors(adapters / HELPFUL_ONLY)
    own = {}
    for projection, (a, b) in read_factors(adapters / name).items():
        known = before[projection][0].shape[0] if projection in before else 0
        if known < a.shape[0]:
            own[projection] = (a[known:], b[:, known:])
    return own
