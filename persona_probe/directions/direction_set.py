"""Directions on disk: one safetensors file per persona, which anybody can read.

A file `<persona>.safetensors` holds one float32 tensor `site_{l}` of shape [d_model] per site,
where site l is the residual stream after block l, counted from 0, before any final norm. The tensor
is `unit * gap`: added to the residual it moves the mean of the negative class onto that of the
positive class, along the direction. The metadata has one key, `persona_probe`, which holds
everything else as JSON. Nobody needs this package to use a direction:

    from safetensors import safe_open
    with safe_open("directions/deontology.safetensors", framework="pt") as file:
        vector = file.get_tensor("site_4")
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from persona_probe.directions.direction import (
    UNIT_TOLERANCE,
    Direction,
    ResidualSpace,
    scaled_unit,
)
from persona_probe.errors import RequestError
from persona_probe.files import read_tensors, write_tensors
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance
from persona_probe.statistics import json_number

DirectionSet: TypeAlias = Mapping[str, Mapping[Site, Direction]]  # persona -> site -> direction

METADATA_KEY = "persona_probe"
FORMAT = "persona_probe.directions/1"
CONVENTION = (
    "site_l is the residual stream after block l, 0-based, before any final norm; "
    "tensor = unit * gap, pointing from negative_label to positive_label"
)


def save_directions(directions: DirectionSet, folder: Path) -> Path:
    """Write one file per persona into `folder`; equal directions give equal bytes.

    Raises:
        RequestError: a persona's name cannot be a file name, or a set is empty.
    """
    for persona, by_site in directions.items():
        if not re.fullmatch(r"\w[\w.+-]*", persona):
            raise RequestError(
                f"the persona {persona!r} cannot name a file; use letters, digits, _ + - and ."
            )
        if not by_site:
            raise RequestError(f"no direction of {persona!r} to save")
    for persona, by_site in directions.items():
        sites = sorted(by_site)
        header = {
            "format": FORMAT,
            "convention": CONVENTION,
            "persona": persona,
            "d_model": len(by_site[sites[0]].unit),
            "directions": {_key(site): _header_of(by_site[site]) for site in sites},
        }
        text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
        tensors = {_key(site): by_site[site].raw for site in sites}
        write_tensors(folder / f"{persona}.safetensors", tensors, {METADATA_KEY: text})
    return folder


def load_directions(
    path: Path, model: ResidualSpace | None = None, allow_other_model: bool = False
) -> dict[str, dict[Site, Direction]]:
    """Read a folder of directions, or one persona's file.

    Args:
        path: what `save_directions` wrote.
        model: if given, every direction must fit it.
        allow_other_model: accept directions that were found in another model of the same shape.

    Raises:
        RequestError: a file is missing, damaged, or not ours; it holds a vector that is not
            finite, has no length, or has another length or width than its header says.
        SiteMismatchError: a direction does not fit `model`.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise RequestError(f"{path} holds no directions: no .safetensors file in it")
    directions = dict(_load_file(file) for file in files)
    if model is not None:
        for by_site in directions.values():
            for direction in by_site.values():
                direction.check_fits(model, allow_other_model)
    return directions


def _load_file(path: Path) -> tuple[str, dict[Site, Direction]]:
    tensors, metadata = read_tensors(path)
    try:
        header = json.loads(metadata[METADATA_KEY])
        persona, d_model, entries = header["persona"], header["d_model"], header["directions"]
        if header["format"] != FORMAT:
            raise RequestError(f"{path} has format {header['format']!r}, expected {FORMAT!r}")
        if set(entries) != set(tensors):
            raise RequestError(f"{path}: its header and its tensors name different sites")
        directions = [
            _direction(path, key, tensors[key], d_model, persona, entries[key]) for key in entries
        ]
    except KeyError as missing:
        raise RequestError(f"{path} is not a file of directions: it has no {missing}") from None
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}: its header is not JSON ({error.msg})") from None
    except (TypeError, AttributeError) as error:
        raise RequestError(f"{path}: its header has another shape than ours ({error})") from None
    return persona, {d.site: d for d in sorted(directions, key=lambda d: d.site)}


def _direction(
    path: Path, key: str, raw: Tensor, d_model: int, persona: str, entry: dict[str, Any]
) -> Direction:
    site = Site(int(key.removeprefix("site_"))) if re.fullmatch(r"site_\d+", key) else None
    if site is None:
        raise RequestError(f"{path}: the tensor {key!r} should be called site_<layer>")
    gap = entry["gap"]
    _require_sound(f"{path}, {key}", raw, d_model, gap)
    return Direction(
        unit=scaled_unit(raw, gap),
        gap=gap,
        midpoint=_number(entry["midpoint"]),
        site=site,
        finder=entry["finder"],
        family=entry["family"],
        persona=persona,
        position=entry["position"],
        norm=_number(entry["norm"]),
        provenance=Provenance.from_json(entry["provenance"]),
        split_hash=entry["split_hash"],
        families_used=frozenset(entry["families_used"]),
        positive_label=entry["positive_label"],
        negative_label=entry["negative_label"],
    )


def _require_sound(where: str, raw: Tensor, d_model: int, gap: object) -> None:
    if tuple(raw.shape) != (d_model,):
        raise RequestError(f"{where}: shape {list(raw.shape)}, expected [{d_model}]")
    length = float(raw.double().norm())
    if not math.isfinite(length):
        raise RequestError(f"{where}: the vector holds NaN or infinity")
    if length == 0:
        raise RequestError(f"{where}: the vector is zero, which is no direction")
    if not (isinstance(gap, int | float) and abs(length - gap) <= UNIT_TOLERANCE * gap):
        raise RequestError(f"{where}: the vector has length {length:.4g}, its header says {gap}")


def _header_of(direction: Direction) -> dict[str, Any]:
    return {
        "gap": direction.gap,
        "midpoint": json_number(direction.midpoint),
        "norm": json_number(direction.norm),
        "finder": direction.finder,
        "family": direction.family,
        "position": direction.position,
        "positive_label": direction.positive_label,
        "negative_label": direction.negative_label,
        "split_hash": direction.split_hash,
        "families_used": sorted(direction.families_used),
        "provenance": direction.provenance.to_json(),
    }


def _key(site: Site) -> str:
    return f"site_{site.layer}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def direction_at(directions: DirectionSet, persona: str, layer: int) -> Direction:
    """One persona's direction at one layer.

    Raises:
        RequestError: there is none; the message lists the choices.
    """
    if persona not in directions:
        raise RequestError(f"no direction of {persona!r}; there are {', '.join(directions)}")
    by_site = directions[persona]
    if Site(layer) not in by_site:
        layers = ", ".join(str(site.layer) for site in by_site)
        raise RequestError(f"no direction of {persona!r} at layer {layer}; there are {layers}")
    return by_site[Site(layer)]
