"""Validation in rows of words: the few numbers that decide, and all of them."""

from collections.abc import Sequence

from persona_probe.directions.checks.evaluating import Evaluated
from persona_probe.directions.checks.group_transfer import GroupTransfer
from persona_probe.directions.checks.transfer import TransferMatrix
from persona_probe.directions.checks.validation_row import DOUBTS, Validation, ValidationRow
from persona_probe.statistics import Estimate

HEADS = [
    "direction",
    "layer",
    "held-out AUROC",
    "n",
    "d'",
    "p max-T",
    "selectivity",
    "gain",
    "split-half",
    "cone",
    "compression",
    "doubts",
]
FULL_HEADS = ["direction", "layer", "number", "value", "95 %", "n", "clusters", "beside it"]
DETECTION_HEADS = ["direction", "layer", "AUROC", "n", "d'", "p max-T", "random: isotropic"]
SAME_TOKENS = (
    "AUROC, d': held-out families, 95 % over families; no word differs, so .5 is the surface. "
    "random: middle 95 % of random directions. What training of any kind does counts too: give a "
    "placebo as AFTER."
)
TRANSFER_HEADS = ["direction", "layer", "own", "others", "own - others", "asymmetry", "lowest cell"]
TRANSFER = (
    "Found on half of each group, AUROC on the other halves. own: mean over the groups' own other "
    "halves; others: over all other groups; their difference leaves out one {unit} at a time. "
    "Noise alone makes asymmetry positive. Every cell with n and interval: --json."
)
SHOWN, WITH_INTERVALS = 12, 4  # groups that a table has room for
NOTHING = "-"
MEANINGS = (
    "AUROC, d', selectivity, gain: held-out families, 95 % over families. p max-T: permutation, "
    "largest of all layers.",
    "selectivity: over control labels of families. gain: over the best of bag of words, length and "
    "--baseline. split-half: Spearman-Brown.",
    "cone: 5 % of the cosines to resampled directions. compression: online code, 1 without effect. "
    "Every number with its control: --full, --json.",
)


def short_rows(found: Sequence[Evaluated]) -> list[list[str]]:
    """One line per direction; the site that the select part prefers bears a star."""
    return [
        [
            each.validation.persona,
            f"{row.site.layer}{'*' if row.site == each.chosen else ''}",
            _with_interval(row.auroc),
            str(row.auroc.n),
            _value(row.d_prime),
            f"{row.p_over_sites:.4f}",
            NOTHING if row.chance is None else _value(row.chance.selectivity),
            _value(row.gain),
            NOTHING if row.reliability is None else f"{row.reliability.spearman_brown:.2f}",
            NOTHING if row.reliability is None else f"{row.reliability.cone:.2f}",
            NOTHING if row.online_code is None else _value(row.online_code.compression),
            ", ".join(row.flags) or NOTHING,
        ]
        for each in found
        for row in each.validation.rows
    ]


def detection_rows(found: Sequence[Validation]) -> list[list[str]]:
    """One line per direction that was to tell two models apart."""
    return [
        [
            each.persona,
            str(row.site.layer),
            _with_interval(row.auroc),
            str(row.auroc.n),
            _value(row.d_prime),
            f"{row.p_over_sites:.4f}",
            f"{row.controls['isotropic'].low:.3f}, {row.controls['isotropic'].high:.3f}",
        ]
        for each in found
        for row in each.rows
    ]


def transfer_rows(found: Sequence[GroupTransfer]) -> list[list[str]]:
    """One line per persona and site: what a group's direction keeps in the other groups."""
    lines = []
    for each in found:
        for of in each.matrices:
            cells = {(a, b): of.cell(a, b) for a in of.directions for b in of.contrasts}
            own, others = (
                [cell.value for (a, b), cell in cells.items() if (a == b) == same]
                for same in (True, False)
            )
            low = min((pair for pair in cells if pair[0] != pair[1]), key=lambda p: cells[p].value)
            lines.append(
                [
                    each.persona,
                    str(of.site.layer),
                    f"{sum(own) / len(own):.3f}",
                    f"{sum(others) / len(others):.3f}",
                    _with_interval(of.dominance),
                    f"{of.asymmetry:.3f}",
                    f"{' -> '.join(low)} {_with_interval(cells[low])}, n {cells[low].n}",
                ]
            )
    return lines


def matrix_rows(of: TransferMatrix) -> list[list[str]]:
    """Row: the group that the direction was found on; column: where it was tried."""
    shown = _with_interval if len(of.contrasts) <= WITH_INTERVALS else _value
    return [[name, *map(shown, cells)] for name, cells in zip(of.directions, of.auroc, strict=True)]


def transfer_notes(found: GroupTransfer) -> list[str]:
    """How many groups, and which are missing."""
    sizes = [cell.n for cell in found.matrices[0].auroc[0]]
    told = f"{len(sizes)} {found.by}, n {min(sizes)} to {max(sizes)} per cell"
    left = [f"{group or 'some examples'}: {why}" for group, why in found.left_out.items()]
    more = f"; {len(left) - 3} more" if len(left) > 3 else ""
    return [
        f"{found.persona}: {told}" + (f"; left out {'; '.join(left[:3])}{more}" if left else "")
    ]


def footnotes(found: Sequence[Evaluated]) -> list[str]:
    """What the short table was measured on, and what its words mean."""
    lines = []
    for each in found:
        told, area = each.validation, each.validation.rows[0].auroc
        where = f"* chosen on {each.n_select} select examples"
        if each.chosen is None:
            where = "no site is chosen, for want of a select part"
        lines.append(
            f"{told.persona}, {told.finder}: {where}; judged on {area.n} examples of "
            f"{area.n_clusters} families ({told.held_out_hash}); split {told.split_hash or '-'}"
        )
    flags = {flag for each in found for row in each.validation.rows for flag in row.flags}
    doubts = [f"{name}: {DOUBTS[name]}" for name in DOUBTS if name in flags]
    return [*lines, *MEANINGS, *(["doubts: " + "; ".join(doubts)] if doubts else [])]


def full_rows(found: Sequence[Evaluated]) -> list[list[str]]:
    """Every number of every direction, with its interval, n and control."""
    return [
        [each.validation.persona, str(row.site.layer), *line]
        for each in found
        for row in each.validation.rows
        for line in _lines(row)
    ]


def _lines(row: ValidationRow) -> list[list[str]]:
    lines = [
        _line("AUROC", row.auroc, _shuffled(row)),
        _line("balanced accuracy", row.balanced_accuracy, "threshold of the find part"),
        _line("d'", row.d_prime),
        _line("gain over surface", row.gain),
        *(_line(f"surface: {name}", area) for name, area in row.baselines.items()),
        *(_line(f"control: {name}", area) for name, area in row.controls.items()),
        _plain("permutation p", row.p, f"max-T {row.p_over_sites:.4f}, Holm {row.p_holm:.4f}"),
    ]
    if chance := row.chance:
        beside = chance.auroc.reason or f"max-T {chance.p_over_sites:.4f}"
        lines += [
            _line("control-task accuracy", chance.control_accuracy),
            _line("selectivity", chance.selectivity),
            _line("shuffles: AUROC", chance.auroc),
            _line("shuffles: |cosine|", chance.cosine),
            _plain("shuffle p", chance.p, beside),
        ]
    if steady := row.reliability:
        lines += [
            _line("split-half cosine", steady.split_half, f"shuffled {steady.split_half_null}"),
            _plain("Spearman-Brown", steady.spearman_brown, ""),
            _line("resampled cosine", steady.cone_cosine, f"cone (5 %) {steady.cone:.3f}"),
            _line("consistency", steady.consistency, f"flipped {steady.consistency_null}"),
            _line("pairwise cosine", steady.pairwise, "0 without effect"),
        ]
    if code := row.online_code:
        about = f"{code.bits:.0f} of {code.n} bits, shuffled {code.control}"
        lines.append(_line("online code compression", code.compression, about))
    if share := row.variance_share:
        about = f"random {share.isotropic:.3f}, covariance-matched {share.matched}"
        lines.append(_line(f"share in top {share.k} components", share.share, about))
    lines.append(_plain("loudest coordinate", row.outlier_ratio, "flagged above 0.3"))
    if quiet := row.without_outliers:
        out = ", ".join(map(str, quiet.coordinates))
        masked = f"cosine {quiet.masked_cosine:.3f}, without {out}"
        lines += [
            _line("AUROC, masked", quiet.masked, masked),
            _line("AUROC, standardised", quiet.standardised, f"{quiet.standardised_cosine:.3f}"),
        ]
    return lines


def _line(name: str, of: Estimate, beside: str = "") -> list[str]:
    interval = NOTHING if of.low != of.low else f"{of.low:.3f}, {of.high:.3f}"
    reason = of.reason or ""
    return [name, _value(of), interval, str(of.n), str(of.n_clusters), beside or reason]


def _plain(name: str, value: float, beside: str) -> list[str]:
    told = NOTHING if value != value else f"{value:.4g}"
    return [name, told, NOTHING, NOTHING, NOTHING, beside]


def _shuffled(row: ValidationRow) -> str:
    """What shuffled labels give, beside the AUROC, where shuffles are a null."""
    defined = row.chance is not None and row.chance.auroc.defined
    return f"shuffled {row.chance.auroc}" if row.chance and defined else "chance 0.5"


def _value(of: Estimate) -> str:
    return f"{of.value:.3f}" if of.defined else NOTHING


def _with_interval(of: Estimate) -> str:
    return f"{of.value:.3f} [{of.low:.3f}, {of.high:.3f}]" if of.defined else NOTHING
