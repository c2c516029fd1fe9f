"""One colour per persona, one symbol per kind of model, one scale of projections: everywhere.

Figures, the report, the chat in the terminal and the playground take their colours from here.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

# Okabe & Ito 2008, without yellow and black, which vanish on paper or on a dark screen.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FIXED = {
    "deontology": "#0072B2",
    "consequentialism": "#D55E00",
    "virtue": "#009E73",
    "service": "#CC79A7",
}
# A projection or a cosine: opposed is blue, alike orange, which people who confuse red and green
# can tell apart.
NEGATIVE, POSITIVE = "#0072B2", "#D55E00"
# From here on upwards, in class gaps (-0.5 and +0.5 are the class means): a colour for letters in a
# terminal, whose ground may be anything from white to dark blue, or none.
PROJECTION_STEPS: tuple[tuple[float, str | None], ...] = (
    (-math.inf, "#0087d7"),
    (-0.5, "#5f87af"),
    (-0.15, None),
    (0.15, "#af7a4f"),
    (0.5, "#d75f00"),
)
STRONGEST_TINT = 0.55  # opacity of the background of a token at the far ends of the scale
GREY = "#858a93"  # at least 3:1 on both the light and the dark page
FAINT = "rgba(133, 138, 147, 0.22)"

Colours = Mapping[str, str]
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")


@dataclass(frozen=True)
class Kind:
    """How a kind of arm is called and drawn.

    Attributes:
        words: what it is called in keys and tables.
        what: one clause that explains it.
        symbol: plotly marker symbol.
        own: whether it is drawn in its persona's colour rather than in grey.
    """

    words: str
    what: str
    symbol: str
    own: bool = True


KINDS = {
    "helpful_only": Kind(
        "helpful-only",
        "the model before safety finetuning; it helps with anything",
        "circle",
        False,
    ),
    "finetuned": Kind("finetuned", "the model after safety finetuning", "circle-open"),
    "steered": Kind("steered", "helpful-only, with the persona's direction added", "diamond"),
    "ablated": Kind("ablated", "finetuned, with the direction taken out", "triangle-down-open"),
    "broad": Kind("broadly finetuned", "finetuned on all kinds of harm", "circle-open-dot"),
    "steered_shared": Kind(
        "steered, shared part", "only what all personas' directions have in common", "diamond-wide"
    ),
    "steered_specific": Kind(
        "steered, own part", "only what is this persona's own", "diamond-tall"
    ),
    "trained": Kind(
        "trained vector",
        "the best one vector of that length at that layer, told the finetuned model's replies",
        "diamond-open",
    ),
    "system_prompt": Kind(
        "system prompt", "helpful-only, told the constitution in words", "square-open"
    ),
    "kl_matched": Kind(
        "KL-matched random",
        "random, at the length that changes harmless replies as much",
        "line-ns",
        False,
    ),
    "random": Kind("random directions", "same length, any direction", "line-ns", False),
    "covariance": Kind(
        "covariance-matched random",
        "random, but spread over directions as real activations are",
        "line-ns",
        False,
    ),
    "shuffled": Kind(
        "shuffled labels", "found in the same way from shuffled labels", "line-ns", False
    ),
    "wrong": Kind("another persona's direction", "same length, wrong persona", "x-thin", False),
    "sign_flip": Kind("direction reversed", "the direction subtracted", "x-thin", False),
    "ablated_random": Kind(
        "random ablation", "finetuned, with a random direction taken out", "line-ns", False
    ),
    "ablated_covariance": Kind(
        "covariance-matched ablation",
        "finetuned, with a covariance-matched random direction taken out",
        "line-ns",
        False,
    ),
    "ablated_rank": Kind("ablated subspace", "finetuned, with a subspace taken out", "x-thin"),
    "ablated_rank_random": Kind(
        "random subspace", "finetuned, with a random subspace taken out", "line-ns", False
    ),
    "ablated_broad": Kind(
        "ablated, broad", "broadly finetuned, with the direction taken out", "triangle-down-open"
    ),
    "ablated_before": Kind(
        "helpful-only, ablated", "helpful-only, with the direction taken out", "x-thin", False
    ),
    "orthogonalised": Kind(
        "orthogonalised", "the direction without its part along a nuisance", "cross"
    ),
    "zero": Kind("zero vector", "nothing added: must change nothing", "x-thin", False),
    "ablated_wrong": Kind(
        "wrong ablation", "finetuned, with another persona's direction taken out", "x-thin", False
    ),
    "neutral": Kind("no persona", "helpful-only, under a neutral system line", "circle", False),
    "placebo": Kind("placebo", "finetuned on harmless replies only", "square-open", False),
    "refusal_only": Kind("bare refusals", "finetuned to refuse without reasons", "square", False),
    "shuffled_constitutions": Kind(
        "shuffled constitutions", "finetuned on samples mixed across personas", "square", False
    ),
    "style_only": Kind("style only", "finetuned on the persona's turns of phrase", "cross", False),
}

TIERS = {
    "T0": "trained on",
    "T1": "not trained on",
    "T2": "held out of everything",
    "T3": "morality outside safety",
}


def projection_tint(value: float, end: float = 1.0) -> str:
    """Background for text at a projection: clear at 0, full at -`end` and +`end`, as CSS.

    Args:
        value: in class gaps; NaN and infinity are clear.
        end: where the colour is strongest.
    """
    if not math.isfinite(value):
        return "rgba(0, 0, 0, 0)"
    strength = min(abs(value) / end, 1.0) * STRONGEST_TINT
    return translucent(POSITIVE if value > 0 else NEGATIVE, round(strength, 3))


def diverging_scale(strength: float = STRONGEST_TINT) -> list[list[Any]]:
    """Plotly colours from opposed to alike, clear in between so that it suits any page."""
    clear = translucent(GREY, 0.08)
    ends = [translucent(colour, strength) for colour in (NEGATIVE, POSITIVE)]
    return [[0.0, ends[0]], [0.5, clear], [1.0, ends[1]]]


def kind_of(name: Any) -> Kind:
    """The kind's style; an unknown kind is grey and called by its own name."""
    return KINDS.get(str(name)) or Kind(str(name).replace("_", " "), "", "cross", False)


def persona_colours(personas: Iterable[Any]) -> dict[str, str]:
    """Assign colours: four constitutions always keep theirs, others take what is left, in order."""
    names = [str(name) for name in dict.fromkeys(personas) if name is not None]
    taken = {FIXED[name] for name in names if name in FIXED}
    free = [colour for colour in OKABE_ITO if colour not in taken] or list(OKABE_ITO)
    others = [name for name in names if name not in FIXED]
    return {name: FIXED[name] for name in names if name in FIXED} | {
        name: free[index % len(free)] for index, name in enumerate(others)
    }


def colours_for(rows: Iterable[Mapping[str, Any]], colours: Colours | None) -> dict[str, str]:
    """The given colours, completed for personas that they do not cover."""
    return persona_colours(row.get("persona") for row in rows) | dict(colours or {})


def persona_symbols(colours: Colours) -> dict[str, str]:
    """A symbol per persona beside its colour, for figures that show several in one frame."""
    return {name: SYMBOLS[index % len(SYMBOLS)] for index, name in enumerate(colours)}


def title_of(name: Any) -> str:
    """A key written for people: `virtue_ethics` → `Virtue ethics`, `HUMAN-PRIMACY` → lower case."""
    words = str(name).replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + (words[1:].lower() if words.isupper() else words[1:])


def label(name: Any) -> str:
    """`title_of` for a plotly text, in which tags would otherwise count."""
    return escape(title_of(name), quote=False)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a hexadecimal colour (WCAG 2 contrast)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#111111"


def translucent(colour: str, alpha: float) -> str:
    """A hexadecimal colour with transparency."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"
