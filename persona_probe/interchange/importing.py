"""Other people's files to directions."""

import math
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction, scaled_unit
from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.files import sha256
from persona_probe.interchange import format_named
from persona_probe.interchange.format import Asked, Found
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance, content_hash


def import_directions(
    path: Path, format_name: str, asked: Asked
) -> dict[str, dict[Site, Direction]]:
    """Read a foreign file.

    The gap is the length of the vector as the file has it, strength included. What the file does
    not say is NaN (midpoint, residual norm) or "unknown". Blocks with a row of zeros in a matrix
    of all blocks have no direction.

    Args:
        path: the file, or the folder for a format that has one.
        format_name: a name in `FORMATS`.
        asked: whose directions they are, and what else the caller knows.

    Returns:
        Persona → site → direction. The weights they were found in are not known to any of these
        formats, so `provenance.model_hash` is `None`; `provenance.command` names the format, the
        file and its SHA-256.

    Raises:
        RequestError: the file is missing, damaged, of another format, or holds a vector that is
            not finite or is zero.
        SiteMismatchError: it does not fit the model of `asked`.
    """
    found = format_named(format_name).read(path, asked)
    provenance = Provenance(
        model=None if asked.shape is None else asked.shape.label,
        command=f"import of the {format_name} file {path.name}, sha256 {_hash(path)}",
    )
    if not found:
        raise RequestError(f"{path} holds no vector that belongs to a block and is not zero")
    directions: dict[str, dict[Site, Direction]] = {}
    for one in sorted(found, key=lambda one: one.site):
        raw = _checked(path, one, len(found[0].vector), asked)
        persona = one.name or asked.persona
        direction = _direction(one, raw, persona, format_name, asked, provenance)
        directions.setdefault(persona, {})[one.site] = direction
    return directions


def _direction(
    found: Found,
    raw: Float[Tensor, " d_model"],
    persona: str,
    format_name: str,
    asked: Asked,
    provenance: Provenance,
) -> Direction:
    gap = float(raw.double().norm())
    position = asked.position or found.position or "unknown"
    return Direction(
        unit=scaled_unit(raw, gap),
        gap=gap,
        midpoint=found.midpoint,
        site=found.site,
        finder=found.finder or f"imported_{format_name}",
        family=asked.family,
        persona=persona,
        position=position,
        norm=found.norm,
        provenance=provenance.with_(positions=position),
        positive_label=persona,
    )


def _checked(path: Path, found: Found, width: int, asked: Asked) -> Float[Tensor, " d_model"]:
    """The vector in float32, if it is one that can be a direction of the model."""
    where, vector = f"{path}, {found.site}", found.vector.double()
    if not vector.isfinite().all():
        raise RequestError(f"{where}: the vector holds NaN or infinity")
    if not vector.any():
        raise RequestError(f"{where}: the vector is zero, which is no direction")
    if not (math.isfinite(found.midpoint) or math.isnan(found.midpoint)):
        raise RequestError(f"{where}: the midpoint is {found.midpoint}")
    shape = asked.shape
    expected = width if shape is None else shape.d_model
    if len(vector) != expected:
        owner = "others in the file have" if shape is None else f"{shape.label} has"
        raise SiteMismatchError(
            f"{where}: the vector has {len(vector)} dimensions, {owner} {expected}"
        )
    if shape is not None and found.site.layer >= shape.n_layers:
        raise SiteMismatchError(
            f"{where}: {shape.label} has layers 0 to {shape.n_layers - 1}; the file may count its "
            "layers in another way than its format says"
        )
    return vector.float()


def _hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, a hash over the names and hashes of its files."""
    if path.is_file():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return content_hash({str(file.relative_to(path)): sha256(file) for file in files})
