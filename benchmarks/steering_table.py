"""Measurements of steered generation as a page in markdown."""

from collections.abc import Mapping
from typing import Any

from benchmarks.steerers import ABOUT, BOTH, OURS, RESPONSE

LEAST_GAIN = {BOTH: 2.2, RESPONSE: 3.0}
STEERED = {BOTH: "every position", RESPONSE: "the response only"}
HEAD = (
    "method",
    "steered",
    "× unsteered generate (min–max)",
    "at its best batch of",
    "replies as the reference has them",
    "sequences",
    "versions",
)


def page(results: Mapping[str, Any]) -> str:
    """The table, the bars, and what was measured on what."""
    measured = results["methods"]
    rows = [
        _row(name, schedule, found)
        for name in ABOUT
        if name in measured
        for schedule, found in measured[name].items()
    ]
    head = ["`transformers.generate`, unsteered", "nothing", "1", _floors(measured), "", "", ""]
    lines = [HEAD, ["---"] * len(HEAD), head, *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = " ".join(
        f"{ABOUT[name].title}: {ABOUT[name].note}." for name in measured if ABOUT[name].note
    )
    parts = [_setting(results), table, notes, *(_bar(measured, s) for s in (BOTH, RESPONSE))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(results: Mapping[str, Any]) -> str:
    return (
        f"{results['date']}. {results['hardware']}; {results['dtype']}; Llama shape "
        f"`{results['shape']}` ({results['parameters'] / 1e6:,.0f} M parameters, "
        f"{results['n_layers']} blocks, vocabulary {results['vocabulary']:,}); random weights; "
        f"{len(results['sites'])} sites × {len(results['strengths'])} strengths × "
        f"{results['prompts']} prompts × {results['new']} new tokens, greedy; prompts sorted by "
        f"length, {results['median']} tokens in the median, {results['longest']} at most; peers "
        f"on {results['peer_configurations']} of the configurations, one at a time."
    )


def _row(name: str, schedule: str, found: Mapping[str, Any]) -> list[str]:
    title = ABOUT[name].title
    if "error" in found:
        return [title, STEERED[schedule], str(found["error"]), *[""] * (len(HEAD) - 3)]
    ratios = found["ratios"]
    return [
        title,
        STEERED[schedule],
        f"**{found['ratio']:.2f}** ({min(ratios):.2f}–{max(ratios):.2f})",
        str(found["batch"]) if found["tried"] else "its own",
        _exactness(found["exactness"]),
        str(found["sequences"]),
        ", ".join(f"{k} {v}" for k, v in found["versions"].items()),
    ]


def _exactness(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not compared"
    text = f"{found['same']} of {found['replies']}"
    if found["largest_margin"] is None:
        return text
    return f"{text}; the others part at a margin of {found['largest_margin']:.1e} at most"


def _floors(measured: Mapping[str, Any]) -> str:
    batches = {f["floor_batch"] for m in measured.values() for f in m.values() if "error" not in f}
    return " or ".join(map(str, sorted(batches)))


def _bar(measured: Mapping[str, Any], schedule: str) -> str:
    """What was to be reached, and whether it was."""
    ours = measured.get(OURS, {}).get(schedule, {"error": ""})
    peers = {
        (name, s): found["ratio"]
        for name, of in measured.items()
        if name != OURS
        for s, found in of.items()
        if "error" not in found
    }
    if "error" in ours or not peers:
        return ""
    best = min(peers, key=lambda peer: peers[peer])
    gain = peers[best] / ours["ratio"]
    reached = "reached" if gain >= LEAST_GAIN[schedule] else "**not reached**"
    return (
        f"- steering {STEERED[schedule]}: {gain:.2f}× faster than the best peer at its best batch "
        f"({ABOUT[best[0]].title}, steering {STEERED[best[1]]}), at least "
        f"{LEAST_GAIN[schedule]} wanted: {reached}; "
        f"{1 / ours['ratio']:.2f}× faster than unsteered generate at its best batch"
    )
