"""Capping configurations of "assistant axis": how far the residual may go along vectors."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of, write_torch
from persona_probe.models.site import Site


@dataclass(frozen=True)
class AssistantAxisCapping:
    """Vectors by name, each with its block, and experiments that cap the residual along them.

    `{"vectors": {name: {"layer": int, "vector": [d_model]}}, "experiments": [{"id": …,
    "interventions": [{"vector": name, "cap": float}]}]}`. A cap is an *upper* bound on h·v/‖v‖. We
    write the raw vectors and one experiment. The strength is where the cap lies, not something
    added: in gaps as `Direction.project` counts them, so +0.5 is the mean of the positive class and
    -0.5 that of the negative one; in norms and raw units, counted from the residual's origin.

    Survive: unit, gap, site; the cap is not read back, since it belongs to no direction. Where
    several vectors lie at one block, --pick an experiment's id or a vector's name. Lost: the rest.
    """

    name: ClassVar[str] = "assistant_axis_capping"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = "`layer` is a 0-based block, capped at its output."

    def read(self, path: Path, asked: Asked) -> list[Found]:
        held = dict_of(read_torch(path), path, ["vectors", "experiments"])
        vectors = dict_of(held["vectors"], f"{path}, 'vectors'")
        found = {name: _vector(path, name, vectors[name]) for name in _picked(path, held, asked)}
        sites = [one.site for one in found.values()]
        if len(set(sites)) < len(sites):
            raise RequestError(
                f"{path} holds {len(sites)} vectors at {len(set(sites))} layers; choose with "
                f"--pick one of {_choices(held)}"
            )
        return list(found.values())

    def write(self, path: Path, additions: Additions) -> list[Path]:
        names = {site: f"layer_{site.layer}/{additions.persona}" for site in additions.sites}
        directions = additions.directions
        vectors = {
            names[site]: {"layer": site.layer, "vector": directions[site].raw.cpu().clone()}
            for site in additions.sites
        }
        caps = [{"vector": names[site], "cap": _cap(additions, site)} for site in additions.sites]
        name = f"{additions.persona}-{additions.strength:g}-{additions.units}"
        experiments = [{"id": name, "interventions": caps}]
        return [write_torch(path, {"vectors": vectors, "experiments": experiments})]


def _cap(additions: Additions, site: Site) -> float:
    direction = additions.directions[site]
    if additions.units != "gap":
        return additions.amount(site)
    if math.isnan(direction.midpoint):
        raise RequestError(
            f"{direction.name} has no midpoint to count gaps from; give the cap with --unit norms "
            "or raw"
        )
    return direction.midpoint + additions.amount(site)


def _picked(path: Path, held: dict[Any, Any], asked: Asked) -> list[Any]:
    """Names of the vectors that were asked for."""
    vectors, experiments = held["vectors"], _list_of(held["experiments"], f"{path}, 'experiments'")
    if asked.pick is None:
        return list(vectors)
    if asked.pick in vectors:
        return [asked.pick]
    for experiment in experiments:
        where = f"{path}, an experiment"
        experiment = dict_of(experiment, where, ["id", "interventions"])
        if experiment["id"] == asked.pick:
            caps = _list_of(experiment["interventions"], where)
            names = [dict_of(cap, where, ["vector"])["vector"] for cap in caps]
            if missing := [name for name in names if name not in vectors]:
                raise RequestError(f"{where}: {asked.pick!r} caps {missing[0]!r}, not in 'vectors'")
            return names
    raise RequestError(f"{path} has no {asked.pick!r}; --pick one of {_choices(held)}")


def _list_of(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(f"{where} holds a {type(value).__name__}, expected a list")
    return value


def _choices(held: dict[Any, Any]) -> str:
    ids = [one.get("id") for one in held["experiments"] if isinstance(one, dict)]
    return f"{', '.join(map(str, [*ids, *held['vectors']])):.300}"


def _vector(path: Path, name: str, entry: Any) -> Found:
    where = f"{path}, vector {name!r}"
    entry = dict_of(entry, where, ["layer", "vector"])
    if not isinstance(entry["layer"], int) or entry["layer"] < 0:
        raise RequestError(f"{where}: the layer must be a number from 0 on, got {entry['layer']!r}")
    return Found(Site(entry["layer"]), tensor_of(entry["vector"], where, n_axes=1))
