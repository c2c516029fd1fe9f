"""File names, so that tests over `FORMATS` can write each format."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.site import Site

WRITABLE = [
    "gguf",
    "persona_vectors",
    "assistant_axis",
    "assistant_axis_capping",
    "steering_vectors",
    "lm_eval",
    "easysteer",
    "axbench",
    "trait_interp",
    "probity",
]
READ_ONLY = ["assistant_axis_roles", "refusal_direction", "caa", "persona_probe"]
TORCH = [
    "persona_vectors",
    "assistant_axis",
    "assistant_axis_capping",
    "steering_vectors",
    "refusal_direction",
    "caa",
    "lm_eval",
    "axbench",
]


def file_of(name: str, folder: Path) -> Path:
    from persona_probe.interchange import FORMATS

    return folder / f"virtue{FORMATS[name].suffix}"


def export(
    name: str,
    folder: Path,
    directions: "Mapping[Site, Direction]",
    layers: list[int],
    **options: Any,
) -> Path:
    from persona_probe.interchange.exporting import export_directions
    from persona_probe.models.site import Site

    chosen = {Site(layer): directions[Site(layer)] for layer in layers}
    path = file_of(name, folder)
    written = export_directions(chosen, name, path, **options)
    assert written
    assert all(file.is_file() for file in written)
    return path
