"""Directions to other people's files."""

from collections.abc import Mapping
from pathlib import Path

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import RequestError
from persona_probe.interchange import writable_format
from persona_probe.interchange.additions import Additions, Units
from persona_probe.models.shape import ModelShape
from persona_probe.models.site import Site, parse_sites

MORE_THAN_ANY = 10_000  # layers; that a layer is missing is found by looking for its direction


def export_directions(
    directions: Mapping[Site, Direction],
    format_name: str,
    path: Path,
    strength: float = 1.0,
    units: Units = "gap",
    shape: ModelShape | None = None,
) -> list[Path]:
    """Write one persona's directions in a foreign format, with the strength baked in.

    Args:
        directions: site → direction.
        format_name: a name in `FORMATS`.
        path: the file, or the folder for a format that has one.
        strength: how many units to add.
        units: "gap", "norm" (median residual norm) or "raw"; as in `steering.Add`.
        shape: the model it is for; some formats need its depth or its architecture.

    Returns:
        The files written.

    Raises:
        RequestError: there is no such format, it is import only, or it cannot express these
            directions. Nothing was written.
    """
    form = writable_format(format_name)
    if not path.name.endswith(form.suffix):
        raise RequestError(f"{path}: the name of a file for {form.name} must end in {form.suffix}")
    return form.write(path, Additions(directions, strength, units, shape))


def at_layers(
    directions: DirectionSet, persona: str, layer: int | None = None, layers: str | None = None
) -> dict[Site, Direction]:
    """One persona's directions at the layers that were asked for.

    Args:
        directions: of any personas.
        persona: whose are meant.
        layer: one layer.
        layers: several, as `parse_sites` reads them; "all" is wherever there is a direction.

    Raises:
        RequestError: nobody has that name; no layer was named and there are several; or there is
            no direction at one of them.
    """
    if persona not in directions:
        raise RequestError(f"no direction of {persona!r}; there are {', '.join(directions)}")
    if layer is not None and layers is not None:
        raise RequestError("give --layer or --layers, not both")
    by_site = directions[persona]
    there = ", ".join(str(site.layer) for site in sorted(by_site))
    if layer is None and layers is None and len(by_site) > 1:
        raise RequestError(f"say at which layer: --layer or --layers; there are {there}")
    wanted = layers or ("all" if layer is None else str(layer))
    if wanted == "all":
        return dict(by_site)
    if "." in wanted:
        raise RequestError(f"--layers {wanted!r} must be whole numbers; there are {there}")
    sites = parse_sites(wanted, MORE_THAN_ANY)
    if missing := [site for site in sites if site not in by_site]:
        raise RequestError(
            f"no direction of {persona!r} at layer {missing[0].layer}; there are {there}"
        )
    return {site: by_site[site] for site in sites}
