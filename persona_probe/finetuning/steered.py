"""Finetuning under an intervention: is a persona kept out by it, or pushed in?

While a direction is added in training, the weights need not learn it, and without it the finetuned
model has less of it (preventative steering, Chen et al. 2025, arXiv:2507.21509). A direction that
is projected out while training cannot be used by what is learnt (concept ablation finetuning,
Casademunt et al. 2025, arXiv:2507.16795). Neither is there when the finished model runs.
"""

from collections.abc import Sequence
from pathlib import Path

from persona_probe.activations.contrast import request
from persona_probe.activations.prompts import read_prompts
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import direction_at, load_directions
from persona_probe.errors import RequestError
from persona_probe.finetuning.watching import Watch
from persona_probe.models.site import Site
from persona_probe.personas.pack import load_pack
from persona_probe.personas.sampling import spread
from persona_probe.steering import operation_named
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.arm import Intervention

SYNTAX = "FOLDER:PERSONA:LAYER"


def direction_named(text: str) -> Direction:
    """A direction as the command line writes it, `FOLDER:PERSONA:LAYER`.

    Raises:
        RequestError: it is written otherwise, or there is no such direction.
    """
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not parts[2].isdigit():
        raise RequestError(f"cannot read the direction {text!r}; write {SYNTAX}")
    return direction_at(load_directions(Path(parts[0])), parts[1], int(parts[2]))


def training_interventions(
    directions: Sequence[str],
    operation: str = "add",
    strength: float = 1.0,
    schedule: str | None = None,
    n_layers: int = 0,
) -> tuple[Intervention, ...]:
    """One operation along each direction: added at its own site, or ablated at every one.

    A direction that is ablated at one site only can be rebuilt by later blocks.

    Args:
        directions: as `direction_named` reads them.
        operation: as `operation_named` reads it.
        strength: of an addition.
        schedule: which tokens; where the direction was read if not given, all for an ablation.
        n_layers: of the model.

    Raises:
        RequestError: a direction cannot be read, or none is named for what is asked.
    """
    if not directions and (operation != "add" or strength != 1.0 or schedule is not None):
        raise RequestError(
            f"an operation, a strength and a schedule belong to a direction to steer by; name one "
            f"as {SYNTAX}"
        )
    meant = operation_named(operation, strength)
    everywhere = isinstance(meant, Ablate)
    sites = tuple(Site(layer) for layer in range(n_layers)) if everywhere else None
    when = schedule or ("both" if everywhere else None)
    return tuple(Intervention(direction_named(d), meant, when, sites) for d in directions)


def watch_named(directions: Sequence[str], prompts: str, every: int, n: int = 60) -> Watch | None:
    """What to watch: directions, on a file of prompts or on a pack's select part.

    Args:
        directions: as `direction_named` reads them; none watches nothing.
        prompts: a file, or a pack, whose harmful prompts of the select part are asked: they are
            neither learnt from nor evaluated on.
        every: steps between measurements.
        n: most prompts of a pack.
    """
    if not directions:
        return None
    if Path(prompts).is_file():
        asked = read_prompts(prompts)
    else:
        pack = load_pack(prompts)
        families = pack.split().select
        harmful = pack.suite.of(kind="harmful", families=families).prompts
        asked = [request(p, pack.neutral_system) for p in spread(harmful, n)]
    return Watch(tuple(direction_named(d) for d in directions), tuple(asked), every)
