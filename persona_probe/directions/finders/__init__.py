"""Ways to find a direction, one file each.

`FINDERS` lists the ways to find one. Another is one file and one line here; the contract tests run
over this dict. `Orthogonalised` wraps any of them; `DirectionClassifier` makes any of them an
estimator of scikit-learn.
"""

from typing import Any

from persona_probe.directions.finder import ORTHOGONAL, Finder
from persona_probe.directions.finders.lda import ShrinkageLDA
from persona_probe.directions.finders.linear_probe import LinearProbe
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.directions.finders.principal_component import PrincipalComponent
from persona_probe.directions.finders.whitened_difference import WhitenedDifference
from persona_probe.errors import RequestError

FINDERS: dict[str, type[Finder]] = {
    finder.name: finder
    for finder in (
        MeanDifference,
        LinearProbe,
        WhitenedDifference,
        ShrinkageLDA,
        PrincipalComponent,
    )
}


def finder_named(name: str, **settings: Any) -> Finder:
    """The finder of this name, with its default settings but for those given.

    Raises:
        RequestError: there is none, or it has no such setting; the message lists the choices.
    """
    if ORTHOGONAL in str(name):
        raise RequestError(
            f"the finder {name!r} is not known by its name alone: it needs its nuisance directions"
        )
    if name not in FINDERS:
        raise RequestError(f"no finder {name!r}; choose one of {', '.join(FINDERS)}")
    finder = FINDERS[name]()
    for setting in settings:
        if setting not in finder.get_params():
            having = [of for of in FINDERS if setting in FINDERS[of]().get_params()]
            raise RequestError(
                f"the finder {name!r} has no setting {setting!r}; "
                + (f"only {', '.join(having)} has" if having else "nor has any other")
            )
    return FINDERS[name](**settings)
