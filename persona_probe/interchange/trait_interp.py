"""Vector folders of trait-interp: a tensor for every block, and what is known of all of them."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from persona_probe.errors import RequestError
from persona_probe.files import read_json, write_json
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import NOT_A_NUMBER, Asked, Found
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of, write_torch
from persona_probe.models.site import Site

METADATA = "metadata.json"
METHODS = {"mean_difference": "mean_diff", "linear_probe": "probe"}
POSITIONS = {
    "response_mean": "response[:]",
    "prompt_mean": "prompt[:]",
    "last_prompt_token": "prompt[-1]",
}


@dataclass(frozen=True)
class TraitInterp:
    """`vectors/{position}/residual/{method}/layer{N}.pt` [d_model] and a `metadata.json`.

    Named is the trait's `vectors` folder, or the method's folder inside it where there are several.
    Its `baseline` is our midpoint, counted along the unit vector.

    Survive: unit, site, midpoint, finder, positions (as far as both know a word for them), the
    model's name; the gap where the strength is 1 gap. Lost: residual norm, split, labels. Vectors
    of attention and MLP outputs are refused.
    """

    name: ClassVar[str] = "trait_interp"
    suffix: ClassVar[str] = ""
    convention: ClassVar[str] = "layerN.pt is the output of 0-based block N."

    def read(self, path: Path, asked: Asked) -> list[Found]:  # noqa: ARG002
        folder = _method_folder(path)
        about = dict_of(read_json(folder / METADATA), folder / METADATA, ["layers"])
        layers = dict_of(about["layers"], f"{folder / METADATA}, 'layers'")
        if (component := about.get("component", "residual")) != "residual":
            raise RequestError(
                f"{folder} holds vectors of {component!r}, which are not of the residual stream"
            )
        finder = _ours(METHODS, about.get("method"))
        position = _ours(POSITIONS, about.get("position"))
        return [
            Found(
                Site(layer),
                tensor_of(read_torch(file), file, n_axes=1),
                _baseline(layers.get(str(layer)), folder),
                finder=finder,
                position=position,
            )
            for layer, file in sorted(_files(folder).items())
        ]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RequestError(f"{path} is not an empty folder; name a new one")
        first = additions.directions[additions.sites[0]]
        method = METHODS.get(first.finder, first.finder)
        position = POSITIONS.get(first.position, first.position)
        folder = path / _sanitised(position) / "residual" / method
        vectors = additions.vectors()
        written = [
            write_torch(folder / f"layer{site.layer}.pt", vector)
            for site, vector in vectors.items()
        ]
        about = {
            "model": first.provenance.model,
            "trait": additions.persona,
            "method": method,
            "component": "residual",
            "position": position,
            "description": additions.sentence(),
            "layers": {str(site.layer): _about(additions, site) for site in vectors},
        }
        return [*written, write_json(folder / METADATA, about)]


def _about(additions: Additions, site: Site) -> dict[str, float]:
    about = {"norm": abs(additions.amount(site))}
    midpoint = additions.midpoint(site)
    return about if math.isnan(midpoint) else about | {"baseline": midpoint}


def _baseline(about: Any, folder: Path) -> float:
    if about is None:
        return NOT_A_NUMBER
    baseline = dict_of(about, folder / METADATA).get("baseline", NOT_A_NUMBER)
    if not isinstance(baseline, int | float):
        raise RequestError(f"{folder / METADATA}: a baseline must be a number, got {baseline!r}")
    return float(baseline)


def _method_folder(path: Path) -> Path:
    """The one folder with vectors at or below `path`."""
    if not path.is_dir():
        raise RequestError(f"{path} is not a folder; trait-interp keeps a folder of vectors")
    if _files(path):
        return path
    below = sorted({file.parent for file in path.rglob("layer*.pt")})
    if len(below) != 1:
        choices = ", ".join(str(folder.relative_to(path)) for folder in below) or "none"
        raise RequestError(f"{path} must hold one folder of layer<N>.pt, it holds: {choices:.300}")
    return below[0]


def _files(folder: Path) -> dict[int, Path]:
    matches = {file: re.fullmatch(r"layer(\d+)\.pt", file.name) for file in folder.iterdir()}
    return {int(match[1]): file for file, match in matches.items() if match}


def _ours(words: dict[str, str], theirs: Any) -> str | None:
    """Our word for theirs; theirs where we have none."""
    if not isinstance(theirs, str):
        return None
    return next((ours for ours, word in words.items() if word == theirs), theirs)


def _sanitised(position: str) -> str:
    """As trait-interp makes a folder's name of a position: response[:] is response_all."""
    for old, new in (("[:]", "_all"), ("[", "_"), ("]", ""), (":", "_"), ("/", "_")):
        position = position.replace(old, new)
    return position
