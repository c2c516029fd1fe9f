"""Measurements as a page in markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods import ABOUT, OURS

MOST_OURS, LEAST_GAIN = 1.10, 1.5
HEAD = (
    "method",
    "× bare forward (min–max)",
    "at its best batch of",
    "× in batches of 16",
    "MiB beyond the model, best batch",
    "MiB, batches of 16",
    "largest difference",
    "n",
    "versions",
)


def page(results: Mapping[str, Any]) -> str:
    """The table, the bars, and what was measured on what."""
    methods = results["methods"]
    rows = [_row(name, methods[name]) for name in ABOUT if name in methods]
    bare = results["bare"]
    floor = ["bare forward pass", "1", "", "", _mib(bare, "0"), "", "", str(bare.get("n", "")), ""]
    parts = [_setting(results), _table([floor, *rows]), _notes(methods), _bars(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(results: Mapping[str, Any]) -> str:
    return (
        f"{results['date']}. {results['hardware']}; {results['dtype']}; Llama shape `"
        f"{results['shape']}` ({results['parameters'] / 1e6:,.0f} M parameters, "
        f"{results['n_layers']} blocks, vocabulary {results['vocabulary']:,}); random weights; "
        f"{results['sites']} sites, last prompt token and response mean; conversations of "
        f"{results['median']} tokens in the median, {results['longest']} at most."
    )


def _row(name: str, measured: Mapping[str, Any]) -> list[str]:
    title = ABOUT[name].title
    if "error" in measured:
        return [title, str(measured["error"]), *[""] * (len(HEAD) - 2)]
    ratios, tried = measured["ratios"], measured["tried"]
    memory = measured["memory"]
    batch = str(measured["batch"])
    return [
        title,
        f"**{measured['ratio']:.2f}** ({min(ratios):.2f}–{max(ratios):.2f})",
        batch if tried else "its own",
        f"{tried['16']:.2f}" if "16" in tried else "",
        _mib(memory, batch),
        _mib(memory, "16") if tried else "",
        f"{measured['difference']:.1e}",
        str(measured["n"]),
        ", ".join(f"{k} {v}" for k, v in measured["versions"].items()),
    ]


def _mib(memory: Mapping[str, Any], batch: str) -> str:
    if "error" in memory:
        return "failed"
    return f"{memory['batches'][batch]['peak_mib']:,.0f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _notes(methods: Mapping[str, Any]) -> str:
    """What a reader has to know of some of the rows."""
    said = [
        f"{ABOUT[name].title.split('`')[0].strip()}: {ABOUT[name].note}."
        for name in methods
        if ABOUT[name].note and "error" not in methods[name]
    ]
    return " ".join(said)


def _bars(results: Mapping[str, Any]) -> str:
    """What was to be reached, and whether it was."""
    methods = results["methods"]
    ours = methods[OURS]
    if "error" in ours:
        return ""
    lines = [
        f"- ours {ours['ratio']:.2f}× the bare forward pass, at most {MOST_OURS:.2f} wanted: "
        f"{_verdict(ours['ratio'] <= MOST_OURS)}"
    ]
    peers = {k: m for k, m in methods.items() if k != OURS and "error" not in m}
    if peers:
        best = min(peers, key=lambda name: peers[name]["ratio"])
        gain = peers[best]["ratio"] / ours["ratio"]
        lines.append(
            f"- {gain:.2f}× faster than the best peer at its best batch ({ABOUT[best].title}), "
            f"at least {LEAST_GAIN} wanted: {_verdict(gain >= LEAST_GAIN)}"
        )
    sixteen = {k: m["tried"]["16"] for k, m in peers.items() if "16" in m["tried"]}
    if sixteen:
        best = min(sixteen, key=lambda name: sixteen[name])
        lines.append(
            f"- {sixteen[best] / ours['ratio']:.2f}× faster than the best peer in batches of 16 "
            f"({ABOUT[best].title})"
        )
    lines += _more_prompts(results.get("more_prompts", []))
    share = ours["flops_per_token"] * ours["tokens_per_second"] / ours["ceiling_flops"]
    lines.append(
        f"- {ours['tokens_per_second']:,.0f} tokens/s; the blocks' matrix products alone are "
        f"{share:.0%} of what one large product reaches on this machine "
        f"({ours['ceiling_flops'] / 1e12:.2f} TFLOP/s)"
    )
    lines.append(
        f"- tokenising and finding positions, not counted above: "
        f"{1e6 * ours['reading_seconds'] / ours['tokens']:.1f} µs per token, "
        f"{ours['reading_seconds'] * ours['tokens_per_second'] / ours['tokens']:.1%} of the time "
        "of reading"
    )
    return "\n".join(lines)


def _more_prompts(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """Does ours take more memory for more conversations?"""
    found = [f"{m['batches']['0']['peak_mib']:.0f} MiB at {m['n']:,}" for m in measured if "n" in m]
    if not found:
        return []
    return [
        f"- memory beyond model and results by number of conversations: {', '.join(found)} "
        "(the first two sites)"
    ]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**not reached**"
