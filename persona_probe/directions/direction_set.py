"""Directions on disk: one safetensors file per persona, which anybody can read.

A file `<persona>.safetensors` holds one float32 tensor `site_{l}` of shape [d_model] per site,
where site l is the residual stream after block l, counted from 0, before any final norm. The tensor
is `unit * gap`: added to the residual it moves the mean of the negative class onto that of the
positive class, along the direction. The metadata has one key, `persona_probe`, which holds
everything else as JSON. Nobody needs this package to use a direction:

    from safetensors import safe_open
    with safe_open("directions/deontology.safetensors", framework="pt") as file:
        vector = file.get_tensor("site_4")

Beside them lies a card, `README.md`, that says what they are and how to use them without this
package. A README that is not such a card is left alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from persona_probe.directions.card import card, is_card
from persona_probe.directions.direction import Direction, ResidualSpace
from persona_probe.directions.direction_file import read_directions, write_directions
from persona_probe.errors import RequestError
from persona_probe.files import remove_leftovers, write_text
from persona_probe.models.site import Site

if TYPE_CHECKING:
    from persona_probe.directions.checks.validation_row import Validation

DirectionSet: TypeAlias = Mapping[str, Mapping[Site, Direction]]  # persona -> site -> direction

CARD = "README.md"


class Directions(dict[str, dict[Site, Direction]]):
    """Persona → site → direction, which shows itself in a notebook and goes to files and the hub.

    It is an ordinary dict: `Directions(found)` makes one of any directions by persona and site.
    """

    def _repr_html_(self) -> str:
        from persona_probe.directions.html import directions_html

        return directions_html(self)

    def save(self, folder: Path | str, **options: Any) -> Path:
        """Write one file per persona and the card; see `save_directions`."""
        return save_directions(self, Path(folder), **options)

    @classmethod
    def load(cls, path: Path | str, **options: Any) -> "Directions":
        """Read a folder or one persona's file; see `load_directions`."""
        return load_directions(Path(path), **options)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Publish on the Hugging Face hub; see `hub.push_to_hub`."""
        from persona_probe.directions.hub import push_to_hub

        return push_to_hub(self, repo, **options)

    @classmethod
    def from_pretrained(cls, repo: str | Path, **options: Any) -> "Directions":
        """Read a folder, or a repository of the hub; see `hub.from_pretrained`."""
        from persona_probe.directions.hub import from_pretrained

        return from_pretrained(repo, **options)


def save_directions(
    directions: DirectionSet,
    folder: Path,
    *,
    licence: str | None = None,
    validations: Iterable["Validation"] = (),
    with_card: bool = True,
) -> Path:
    """Write one file per persona into `folder`, and the card; equal directions give equal bytes.

    Args:
        directions: persona → site → direction.
        folder: other personas' files in it stay, and the card speaks of them too.
        licence: SPDX identifier ("Apache-2.0"); replaces what the directions say.
        validations: numbers for the card.
        with_card: whether to write the card, for callers who write a README of their own.

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
    remove_leftovers(folder)
    for persona, by_site in directions.items():
        licensed = {
            site: direction if licence is None else replace(direction, licence=licence)
            for site, direction in by_site.items()
        }
        write_directions(folder / f"{persona}.safetensors", persona, licensed)
    if with_card:
        write_card(folder, validations)
    return folder


def write_card(folder: Path, validations: Iterable["Validation"] = ()) -> Path | None:
    """Write the card of a folder of directions; `None` where another README lies there."""
    path = folder / CARD
    if path.exists() and not is_card(path.read_text(encoding="utf-8")):
        return None
    return write_text(path, card(_readable(folder), validations))


def load_directions(
    path: Path, model: ResidualSpace | None = None, allow_other_model: bool = False
) -> Directions:
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
    directions = Directions(read_directions(file) for file in files)
    if model is not None:
        for by_site in directions.values():
            for direction in by_site.values():
                direction.check_fits(model, allow_other_model)
    return directions


def common_sites(directions: DirectionSet) -> list[Site]:
    """Sites at which every persona has a direction, in order of depth.

    Raises:
        RequestError: there is none.
    """
    per_persona: list[Mapping[Site, Direction]] = list(directions.values())
    sites = set(per_persona[0]).intersection(*per_persona[1:]) if per_persona else set()
    if not sites:
        raise RequestError(f"the directions of {', '.join(directions)} have no site in common")
    return sorted(sites)


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


def _readable(folder: Path) -> dict[str, dict[Site, Direction]]:
    """Whatever directions the folder holds; files of other tools do not count."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            persona, by_site = read_directions(path)
        except RequestError:
            continue
        found[persona] = by_site
    return found
