"""The tables of `persona-probe compare`: one per question, at most a terminal's width."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persona_probe.cli.say import table
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    from persona_probe.directions.before_after.context_free import ContextFree
    from persona_probe.directions.before_after.finetunes import Finetunes
    from persona_probe.directions.before_after.survey import Survey
    from persona_probe.directions.before_after.weight_difference import WeightDifference
    from persona_probe.directions.checks.transfer import TransferMatrix
    from persona_probe.directions.families.family_set import FamilySet

Lines = list[list[str]]

ALONG = (
    "cosine to shift: direction against the mean of after - before, 95 % over families; "
    "noise-free: without the shift's sampling noise, not clipped. null: |cosine| to balanced sign "
    "flips of the shifts. floor: the placebo's; ceiling: the second seed's own shift. shift: along "
    "the direction, in standard deviations before."
)
MOVED = (
    "CKA: 1 where activations keep their geometry. constant: energy of the shifts that is the same "
    "for every prompt. top 1 / {k}: energy in the first of their directions, beside noise of this "
    "size. in older span: noise-free share of the mean shift in the span of the directions given; "
    "null: of as many random directions with the activations' covariance."
)
ALIKE = (
    "cosine: between the mean shifts; noise-free: from products of different families only; null: "
    "|cosine| to balanced sign flips. subspace: mean cosine of the {k} principal angles, each side "
    "on another half of the families; in brackets the same of one finetune with itself."
)


def finetunes(found: "Finetunes") -> list[str]:
    """What moved, along which directions, how much of it was there before, and who agrees."""
    # The controls stand in the columns floor and ceiling; their own rows are in the JSON.
    controls = _controls(found)
    several, texts = len(set(found.cka) - controls) > 1, []
    rows: Lines = [
        [
            *([name] if several else []),
            row.persona,
            str(row.site.layer),
            span(row.cosine_interval),
            number(row.debiased),
            f"{row.null_cosine.high:.2f}",
            number(row.floor),
            number(row.ceiling),
            span(row.shift),
        ]
        for name, comparison in found.comparisons.items()
        if name not in controls
        for row in comparison.rows
    ]
    if rows:
        heads = ["direction", "layer", "cosine to shift", "noise-free", "null 97.5%"]
        heads += ["floor", "ceiling", "shift (sd before)"]
        heads = ["finetune", *heads] if several else heads
        title = f"Did it move along directions that were there before? {_counted(found)}"
        texts.append(f"{table(heads, rows, title)}\n{ALONG}")
    texts.append(_moved(found))
    if found.pairs:
        texts.append(_pairs(found))
    return texts


def _controls(found: "Finetunes") -> set[str]:
    """The placebo and the second seed, as the pairs tell."""
    subject = next(iter(found.cka))
    return {pair.other for pair in found.pairs if pair.role and pair.one == subject}


def _counted(found: "Finetunes") -> str:
    alike = next(iter(found.cka.values()))[0].cka
    return f"(n = {alike.n}, {alike.n_clusters} families)"


def _moved(found: "Finetunes") -> str:
    """CKA, spectrum and R2_pre of every finetune."""
    alike = {(name, row.site): row.cka for name, rows in found.cka.items() for row in rows}
    older = {(row.name, row.site): row for row in found.pre_existing}
    rows: Lines = []
    for row in found.spectra:
        before = older.get((row.name, row.site))
        rows.append(
            [
                row.name,
                str(row.site.layer),
                span(alike[row.name, row.site]),
                span(row.constant_share),
                f"{number(row.top_share)} / {number(row.top_k_share)}",
                f"{row.noise_top_share:.2f}",
                f"{row.effective_rank.value:.1f} ({row.noise_rank:.0f})",
                "-" if before is None else span(before.debiased),
                "-" if before is None else f"{before.chance.high:.2f}",
            ]
        )
    k = found.spectra[0].k
    heads = ["finetune", "layer", "CKA with before", "constant", f"top 1 / {k}", "noise top 1"]
    heads += ["rank (noise)", "in older span", "null 97.5%"]
    title = f"What moved, and how much of it was there before? {_counted(found)}"
    return f"{table(heads, rows, title)}\n{MOVED.format(k=k)}"


def _pairs(found: "Finetunes") -> str:
    angles = {(row.one, row.other, row.site): row for row in found.angles}
    rows: Lines = []
    for row in found.pairs:
        angle = angles[row.one, row.other, row.site]
        rows.append(
            [
                f"{row.one} / {row.other}" + (f" ({row.role})" if row.role else ""),
                str(row.site.layer),
                span(row.cosine),
                number(row.whitened),
                span(row.debiased),
                f"{row.null_cosine.high:.2f}",
                f"{number(row.cka.cka)} ({number(row.cka.chance, 'high')})",
                f"{number(angle.across_halves)} ({number(angle.ceiling)})",
            ]
        )
    heads = ["shifts", "layer", "cosine", "whitened", "noise-free", "null 97.5%"]
    heads += ["CKA (null)", "subspace (itself)"]
    text = table(heads, rows, f"Do the finetunes move it alike? {_counted(found)}")
    return f"{text}\n{ALIKE.format(k=found.spectra[0].k)}"


def transfer(found: "Sequence[TransferMatrix]") -> list[str]:
    """One table for all layers: the direction in front, what it is to detect on top."""
    if not found:
        return []
    rows: Lines = [
        [str(of.site.layer), name, *(number(cell) for cell in cells), span(of.dominance)]
        for of in found
        for name, cells in zip(of.directions, of.auroc, strict=True)
    ]
    n = found[0].auroc[0][0]
    title = f"Does one persona's direction detect another? Held-out AUROC (n = {n.n} per cell)"
    return [table(["layer", "direction", *found[0].contrasts, "own - others"], rows, title)]


def survey(found: "Survey") -> str:
    """All personas at all layers."""
    rows: Lines = [
        [
            row.persona,
            str(row.site.layer),
            span(row.auroc),
            number(row.null_auroc, "high"),
            f"{row.p_over_sites:.4f}",
            f"{row.reliability:.2f}",
            number(row.energy),
            span(row.cosine),
            "-" if row.corrected != row.corrected else f"{row.corrected:.2f}",
            number(row.null_cosine, "high"),
            f"{number(row.floor)} / {number(row.ceiling)}",
            span(row.shift),
        ]
        for row in found.rows
    ]
    heads = ["persona", "layer", "held-out AUROC", "null", "p", "reliab.", "own part"]
    heads += ["cosine to shift", "corr.", "null", "floor / ceil.", "shift (sd)"]
    counts = sorted({(row.auroc.n, row.shift.n) for row in found.rows})
    after = {row.persona: row.finetune or "nothing" for row in found.rows}
    title = f"All personas before and after (AUROC n = {counts[-1][0]}, shift n = {counts[-1][1]})"
    pairs = ", ".join(f"{persona} with {finetune}" for persona, finetune in after.items())
    return table(heads, rows, title) + f"\ncompared: {pairs}"


def context_free(found: "Sequence[ContextFree]") -> str:
    """The shift on unrelated text."""
    rows: Lines = [
        [row.name, str(row.site.layer), span(row.share), span(row.cosine)] for row in found
    ]
    title = f"Does it move unrelated text too? (n = {found[0].n_neutral})"
    return table(["finetune", "layer", "context-free share", "cosine"], rows, title)


def weights(found: "WeightDifference") -> str:
    """What the adapter writes."""
    rows: Lines = [
        [
            row.persona,
            str(row.site.layer),
            row.scope,
            str(row.rank),
            "-" if row.reason else f"{row.cosine:.2f}",
            "-" if row.reason else f"{row.top_k_share:.3f}",
            "-" if row.reason else f"{row.chance_high:.3f}",
            "-" if row.reason else f"{row.energy_share:.4f}",
            f"{row.chance_energy:.4f}",
        ]
        for row in found.rows
    ]
    heads = ["direction", "layer", "blocks", "rank", "top 1", "in top k", "null 97.5%"]
    heads += ["energy", "chance"]
    text = table(heads, rows, f"Does the adapter write it? ({Path(found.adapter).name})")
    if found.left_out:
        text += f"\nnot counted: {len(found.left_out)} matrices, {found.left_out[0]} first"
    return text


def saved(found: "FamilySet", out: Path) -> str:
    """Where the directions are, and what is missing."""
    lines = [f"{len(found.directions)} directions: {', '.join(found.directions)} -> {out}"]
    lines += [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
    return "\n".join(lines)


def span(estimate: Estimate) -> str:
    """Value and interval, or a dash."""
    if not estimate.defined:
        return "-"
    if estimate.low != estimate.low:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def number(estimate: Estimate, which: str = "value") -> str:
    """One number of it, or a dash."""
    value = getattr(estimate, which)
    return "-" if value != value else f"{value:.2f}"
