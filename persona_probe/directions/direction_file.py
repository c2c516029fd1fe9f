"""One persona's directions as one safetensors file, and back.

Reading trusts nothing: a file that is truncated, edited, of other widths, or not what its header
says is refused in one sentence, and nothing is ever unpickled.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from persona_probe.directions.direction import UNIT_TOLERANCE, Direction, scaled_unit
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.files import read_tensors, write_tensors
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance, content_hash
from persona_probe.statistics import json_number

METADATA_KEY = "persona_probe"
FORMAT = "persona_probe.directions/1"
CONVENTION = (
    "site_l is the residual stream after block l, 0-based, before any final norm; "
    "tensor = unit * gap, pointing from negative_label to positive_label"
)


def write_directions(path: Path, persona: str, by_site: Mapping[Site, Direction]) -> Path:
    """Write one persona's directions; equal directions give equal bytes."""
    sites = sorted(by_site)
    tensors = {_key(site): by_site[site].raw for site in sites}
    header = {
        "format": FORMAT,
        "convention": CONVENTION,
        "persona": persona,
        "d_model": len(by_site[sites[0]].unit),
        "directions": {_key(site): _header_of(by_site[site]) for site in sites},
    }
    header["checksum"] = _checksum(header, tensors)
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_tensors(path, tensors, {METADATA_KEY: text})


def read_directions(path: Path) -> tuple[str, dict[Site, Direction]]:
    """The persona and its directions, in order of depth.

    Raises:
        RequestError: the file is missing, damaged, or not ours; it holds a vector that is not
            finite, has no length, or has another length or width than its header says.
    """
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
        raise RequestError(
            f"{path} is not a file of directions: it has no {missing}; steering "
            "vectors are read by `persona-probe import`"
        ) from None
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}: its header is not JSON ({error.msg})") from None
    except (TypeError, AttributeError) as error:
        raise RequestError(f"{path}: its header has another shape than ours ({error})") from None
    if header.get("checksum") not in (None, _checksum(header, tensors)):
        raise RequestError(
            f"{path} does not match its own checksum: it was damaged or edited; fetch it again, or "
            "find the directions again"
        )
    return persona, {d.site: d for d in sorted(directions, key=lambda d: d.site)}


def _direction(
    path: Path, key: str, raw: Tensor, d_model: int, persona: str, entry: dict[str, Any]
) -> Direction:
    site = Site(int(key.removeprefix("site_"))) if re.fullmatch(r"site_\d+", key) else None
    if site is None:
        raise RequestError(f"{path}: the tensor {key!r} should be called site_<layer>")
    gap = entry["gap"]
    _require_sound(f"{path}, {key}", raw, d_model, gap)
    try:
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
            families_selected=frozenset(entry.get("families_selected", ())),
            n_positive=entry.get("n_positive"),
            n_negative=entry.get("n_negative"),
            licence=entry.get("licence"),
        )
    except PersonaProbeError as error:
        raise RequestError(f"{path}, {key}: {error}") from None


def _require_sound(where: str, raw: Tensor, d_model: int, gap: object) -> None:
    if tuple(raw.shape) != (d_model,):
        raise RequestError(f"{where}: shape {list(raw.shape)}, expected [{d_model}]")
    if not raw.is_floating_point():
        raise RequestError(f"{where}: {raw.dtype} numbers, expected float32")
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
        "n_positive": direction.n_positive,
        "n_negative": direction.n_negative,
        "split_hash": direction.split_hash,
        "families_used": sorted(direction.families_used),
        "families_selected": sorted(direction.families_selected),
        "licence": direction.licence,
        "provenance": direction.provenance.to_json(),
    }


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Of everything that the file says: a damaged number may be as finite as a sound one."""
    told = {name: value for name, value in header.items() if name != "checksum"}
    numbers = {
        name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }
    return content_hash({"header": told, "tensors": numbers})


def _key(site: Site) -> str:
    return f"site_{site.layer}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
