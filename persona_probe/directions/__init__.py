"""Numbers to a direction: find it, doubt it, compare it.

`FINDERS` lists the ways to find one. Another is one file and one line here; the contract tests run
over this dict.
"""

from persona_probe.directions.finder import Finder
from persona_probe.directions.linear_probe import LinearProbe
from persona_probe.directions.mean_difference import MeanDifference
from persona_probe.errors import RequestError

FINDERS: dict[str, type[Finder]] = {finder.name: finder for finder in (MeanDifference, LinearProbe)}


def finder_named(name: str) -> Finder:
    """The finder of this name with its default settings.

    Raises:
        RequestError: there is none; the message lists the choices.
    """
    if name not in FINDERS:
        raise RequestError(f"no finder {name!r}; choose one of {', '.join(FINDERS)}")
    return FINDERS[name]()
