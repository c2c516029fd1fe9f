"""The diagnostic's own checks, for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from persona_probe.cli.say import table

if TYPE_CHECKING:
    from persona_probe.evaluation.instrument import Instrument
    from persona_probe.evaluation.listing import Listing
    from persona_probe.evaluation.positive_control import PositiveControl


def instrument_text(instruments: "Mapping[str, Instrument]") -> str:
    """What answers owe to their form, one line per arm."""
    rows = [
        [
            name,
            f"{found.option_mass:.2f}",
            f"{found.flagged} of {found.items}",
            str(found.in_words),
            str(found.acquiescence),
            str(found.order_effect),
        ]
        for name, found in instruments.items()
    ]
    columns = ["model", "option mass", "below .5", "read in words", "acquiescence", "order effect"]
    return f"\n\nThe diagnostic as an instrument\n{table(columns, rows)}"


def listing_text(listings: "Mapping[str, Listing]") -> str:
    """Scenarios read in two ways, one line per arm; empty where a pack has none."""
    if not listings:
        return ""
    rows = [
        [name, str(found.agreement), str(found.order_effect), f"{found.label_mass:.2f}"]
        for name, found in listings.items()
    ]
    columns = ["model", "agreement r", "order effect", "letters' probability"]
    said = "agreement of replies listed as A and B, in both orders, with replies scored alone"
    return f"\n\nScenarios read in two ways\n{table(columns, rows)}\n{said}"


def control_text(control: "PositiveControl | None") -> str:
    """Which character each constitution looks like; empty when that was not measured."""
    if control is None:
        return ""
    rows = [
        [name, found.best or "nobody", str(found.margin), str(control.matches[name].pearson)]
        for name, found in control.identified.items()
    ]
    verdict = (
        "the diagnostic can tell characters apart on this model"
        if control.passed
        else "too few: this model is too weak for the diagnostic, its profiles mean little"
    )
    said = f"{control.correct} of {len(rows)} constitutions recognised: {verdict}"
    columns = ["constitution", "looks like", "margin", "match with its signature"]
    return f"\n\nPositive control\n{table(columns, rows)}\n{said}"
