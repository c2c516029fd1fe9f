"""The numbers that the verdict ladder reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from persona_probe.statistics import Equivalence, Estimate
from persona_probe.study.band import Band


@dataclass(frozen=True)
class Evidence:
    """The numbers that the ladder reads, for one persona. `None` = not measured.

    Attributes:
        layer: of the site that all of this is about.
        auroc: finetuned against helpful-only activations on held-out families, same tokens.
        auroc_contrast: persona against neutral system prompts on held-out families.
        permutation_p: of `auroc`, labels permuted within family.
        surface_gain: `auroc` minus the best surface baseline on the same examples.
        split_half: Spearman-Brown corrected cosine of directions from halves of the families.
        cone: 5th percentile of the cosine between the direction and its bootstrap copies.
        p_fast: kind of random direction → p of the added direction on the log-probability channel.
        p_added: the largest of these, Holm-adjusted over the confirmatory family.
        effect: ER on generated replies. effect_j: ER_J, harmful refusals minus over-refusals.
        bands: control kind → largest ER among that kind's generated arms.
        guard_reasons: why the guards failed; empty when they passed.
        equivalence: is Y(finetuned) - Y(steered) inside the margin, by its 90 % interval?
        identified: whether the steered profile is nearest to its own persona's signature.
        margin: own match minus the best other. finetuned_margin: the same for the finetuned
            profile: without a character of its own there is none to reproduce.
        profile_recovery: PR of the steered profile.
        greyed: dimensions of the profile whose positively and negatively keyed statements do not
            move together over the study's models; they count in none of these numbers.
        margin_with_greyed: `margin` over all dimensions, for comparison.
        unchecked: why it is not known of some dimensions, or of all, whether they do.
        unreadable: why nothing can be concluded from the profile.
        effect_wrong: largest profile match to the own persona among wrong-constitution arms,
            subtracted from the steered arm's: positive = the direction is more its own.
        refusal_only: steered profile shift minus the refusal-only finetune's.
        necessity: NEC. necessity_controls: control kind → NEC of that control's ablation.
        p_ablated: kind of random direction → p of the ablated direction on the same channel.
        p_removed: the largest of these, Holm-adjusted over the confirmatory family.
        p_floor: the smallest that such a p can be with so many random directions.
        retention: steered effect on filtered categories over that on trained ones.
    """

    layer: int | None = None
    auroc: Estimate | None = None
    auroc_contrast: Estimate | None = None
    permutation_p: float | None = None
    surface_gain: float | None = None
    split_half: float | None = None
    cone: float | None = None
    p_fast: Mapping[str, float] = field(default_factory=dict)
    p_added: float | None = None
    effect: Estimate | None = None
    effect_j: Estimate | None = None
    bands: Mapping[str, Band] = field(default_factory=dict)
    guard_reasons: tuple[str, ...] | None = None
    equivalence: Equivalence | None = None
    identified: bool | None = None
    margin: Estimate | None = None
    finetuned_margin: Estimate | None = None
    profile_recovery: Estimate | None = None
    greyed: tuple[str, ...] = ()
    margin_with_greyed: Estimate | None = None
    unchecked: str | None = None
    unreadable: str | None = None
    effect_wrong: Estimate | None = None
    refusal_only: Estimate | None = None
    necessity: Estimate | None = None
    necessity_controls: Mapping[str, Band] = field(default_factory=dict)
    p_ablated: Mapping[str, float] = field(default_factory=dict)
    p_removed: float | None = None
    p_floor: float = 0.0
    retention: Estimate | None = None
