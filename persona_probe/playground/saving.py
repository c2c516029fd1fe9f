"""A setting kept: as a vector that needs no package, and as a direction that every command takes.

NAME/steering_vector.safetensors      one tensor, `vector`: what is added, strength baked in
NAME/directions/NAME.safetensors      the same vector as a direction whose gap is its length,
                                      so that `steer --operation add:gap --strength 1` adds it

Both say in their header which sliders they come from.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from persona_probe.directions.direction_set import direction_at, save_directions
from persona_probe.errors import RequestError
from persona_probe.playground.session import Session
from persona_probe.playground.setting import Setting, mixture, positions_of, units_of
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Intervention
from persona_probe.steering.vector_file import write_steering_vector

LONGEST_NAME = 64


@dataclass(frozen=True)
class Saved:
    """Where a setting lies, and how to use it.

    Attributes:
        vector: the steering-vector file.
        direction: the file of the direction.
        command: steers with it on the command line; PROMPT is for you to fill in.
    """

    vector: Path
    direction: Path
    command: str


def save_setting(session: Session, setting: Setting, name: str, out: Path) -> Saved:
    """Write what the sliders add.

    Args:
        session: whose directions the sliders belong to.
        setting: where they stand.
        name: of the folder in `out`, and of the mixture.
        out: folder for all that is saved.

    Raises:
        RequestError: the name cannot name a folder, is taken, or all sliders are at 0.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", name) or len(name) > LONGEST_NAME:
        raise RequestError(
            f"{name!r:.80} cannot name a file; use letters, digits, _ + - and ., "
            f"{LONGEST_NAME} at most"
        )
    mixed = mixture(session.directions, setting, name)
    if mixed is None:
        raise RequestError("all sliders are at 0, so there is nothing to save; move one first")
    folder = out / name
    if folder.exists():
        raise RequestError(f"{folder} exists already; choose another name")
    parts = {p: direction_at(session.directions, p, setting.layer) for p in setting.active}
    positions = positions_of(parts, setting)
    units = units_of(session.directions)
    save_directions({name: {mixed.site: mixed}}, folder / "directions")
    vector = write_steering_vector(
        folder / "steering_vector.safetensors",
        Intervention(mixed, Add(1.0, "gap"), positions),
        session.adapter,
        parts=[
            Intervention(direction, Add(setting.strengths[persona], units), positions)
            for persona, direction in parts.items()
        ],
    )
    words = [
        "persona-probe",
        "steer",
        session.called or session.model.ref.name,
        "PROMPT",
        "--directions",
    ]
    words += [str(folder / "directions"), "--persona", name, "--layer", str(setting.layer)]
    words += ["--operation", "add:gap", "--strength", "1", "--schedule", positions]
    if session.adapter is not None:
        words += ["--adapter", session.adapter]
    return Saved(vector, folder / "directions" / f"{name}.safetensors", shlex.join(words))
