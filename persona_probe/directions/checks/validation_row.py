"""What validation says of one persona's directions, number by number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from persona_probe.directions.checks.chance import Chance
from persona_probe.directions.checks.online_code import OnlineCode
from persona_probe.directions.checks.outliers import LIMIT, WithoutOutliers
from persona_probe.directions.checks.reliability import Reliability
from persona_probe.directions.checks.variance_share import VarianceShare
from persona_probe.display import table
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, json_number

RELIABLE = 0.8
DOUBTS = {
    "loud coordinate": "coordinates that vary very much own the direction: without them it is "
    "another one, or separates less",
    "drowned": "separates better without a few loud coordinates; shrinkage_lda and linear_probe "
    "weigh them down",
    "low variance": "most of it lies where activations hardly vary",
    "surface": "not shown to beat what can be read off the text; between system lines, whose words "
    "differ by design, nothing can: see --same-tokens",
    "shuffles": "shuffled labels give directions that separate as well (p > .05)",
    "labels unused": "shuffled labels give the same axis, for the finder asks who is paired with "
    "whom: no shuffle null; p max-T permutes held-out labels and stands",
    "unreliable": f"split-half reliability below {RELIABLE}",
}
PROFILES = ("auroc", "balanced_accuracy", "d_prime", "gain")


@dataclass(frozen=True)
class ValidationRow:
    """Everything measured about one direction.

    Attributes:
        site: where.
        auroc: on held-out families, interval clustered by family.
        balanced_accuracy: with the midpoint of the find part as threshold.
        d_prime: distance of class means in pooled standard deviations.
        gain: AUROC minus that of the best baseline, paired.
        p: permutation p of the AUROC, labels permuted within pairs, or else within families.
        p_over_sites: the same against the largest null AUROC of all sites (max-T).
        outlier_ratio: largest over median standard deviation of a coordinate, over sqrt(d_model).
        baselines: AUROC of what can be read without the model; see `surface`.
        chance: `None` without the activations that the direction was found on.
        reliability: likewise.
        p_holm: `p` times the sites left to test, by Holm; more cautious than `p_over_sites`, which
            knows how alike the sites are.
        controls: AUROC of directions that should separate less: random ones (mean and middle 95 %
            of draws), the flipped one, other personas' ("wrong: ..."), this one without a nuisance
            ("without: ...").
        variance_share: how much of it lies where activations vary before finetuning.
        online_code: `None` without the activations that the direction was found on.
        without_outliers: likewise.
    """

    site: Site
    auroc: Estimate
    balanced_accuracy: Estimate
    d_prime: Estimate
    gain: Estimate
    p: float
    p_over_sites: float
    outlier_ratio: float
    baselines: dict[str, Estimate] = field(default_factory=dict)
    chance: Chance | None = None
    reliability: Reliability | None = None
    p_holm: float = math.nan
    controls: dict[str, Estimate] = field(default_factory=dict)
    variance_share: VarianceShare | None = None
    online_code: OnlineCode | None = None
    without_outliers: WithoutOutliers | None = None

    @property
    def outlier_flag(self) -> bool:
        """Whether one coordinate varies so much that it may own the direction."""
        return self.outlier_ratio > LIMIT

    @property
    def owned_by_outliers(self) -> bool:
        """Whether a flagged direction does not hold without its loud coordinates.

        Less than half of its squared length is left then, or it separates worse than the interval
        of its AUROC reaches; a flag that nobody looked into counts as true.
        """
        quiet = self.without_outliers
        if not self.outlier_flag or quiet is None:
            return self.outlier_flag
        return not (quiet.masked_cosine**2 > 0.5 and quiet.masked.value >= self.auroc.low)

    @property
    def drowned_by_outliers(self) -> bool:
        """Whether a flagged direction separates clearly better without its loud coordinates."""
        quiet = self.without_outliers
        return self.outlier_flag and quiet is not None and quiet.masked.low > self.auroc.value

    @property
    def flags(self) -> tuple[str, ...]:
        """What should make a reader doubt the direction, in the words of `DOUBTS`."""
        chance, share = self.chance, self.variance_share
        there = {
            "loud coordinate": self.owned_by_outliers,
            "drowned": self.drowned_by_outliers,
            "low variance": share is not None and share.flag,
            "surface": self.gain.defined and not self.gain.low > 0,
            "shuffles": chance is not None and not chance.without_labels and chance.p > 0.05,
            "labels unused": chance is not None and chance.without_labels,
            "unreliable": self.reliability is not None
            and not self.reliability.spearman_brown >= RELIABLE,
        }
        return tuple(doubt for doubt, is_there in there.items() if is_there)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        measured = {
            name: None if part is None else part.to_json()
            for name, part in {
                "chance": self.chance,
                "reliability": self.reliability,
                "variance_share": self.variance_share,
                "online_code": self.online_code,
                "without_outliers": self.without_outliers,
            }.items()
        }
        return {
            "layer": self.site.layer,
            "auroc": self.auroc.to_json(),
            "balanced_accuracy": self.balanced_accuracy.to_json(),
            "d_prime": self.d_prime.to_json(),
            "gain": self.gain.to_json(),
            "baselines": {name: area.to_json() for name, area in self.baselines.items()},
            "p": json_number(self.p),
            "p_over_sites": json_number(self.p_over_sites),
            "p_holm": json_number(self.p_holm),
            "controls": {name: area.to_json() for name, area in self.controls.items()},
            "outlier_ratio": json_number(self.outlier_ratio),
            "outlier_flag": self.outlier_flag,
            "owned_by_outliers": self.owned_by_outliers,
            "flags": list(self.flags),
            **measured,
        }


@dataclass(frozen=True)
class Validation:
    """The rows of one persona's directions, in order of depth: its layer profile.

    Attributes:
        persona: whose.
        finder: that found them.
        rows: one per site.
        effort: how much was drawn, and the seed.
        split_hash: of the split that the directions were found under, if any.
        used_hash: of the prompt families they were found and selected on.
        held_out_hash: of the prompt families that judged them.
    """

    persona: str
    finder: str
    rows: tuple[ValidationRow, ...]
    effort: Mapping[str, int] = field(default_factory=dict)
    split_hash: str | None = None
    used_hash: str | None = None
    held_out_hash: str | None = None

    def _repr_html_(self) -> str:
        heads = ["layer", "AUROC", "d'", "gain over surface", "p, max over layers"]
        rows = [
            [r.site.layer, r.auroc, r.d_prime, r.gain, r.p_over_sites, ", ".join(r.flags) or "none"]
            for r in self.rows
        ]
        told = f"Validation: {self.persona}, {self.finder}; held out, 95 % over families"
        return table([*heads, "doubts"], rows, told)

    def at(self, site: Site) -> ValidationRow:
        """The row of one site.

        Raises:
            RequestError: there is none.
        """
        for row in self.rows:
            if row.site == site:
                return row
        there = ", ".join(str(row.site.layer) for row in self.rows)
        raise RequestError(f"{self.persona!r} was not validated at {site}, only at layers {there}")

    def profile(self, number: str = "auroc") -> dict[Site, Estimate]:
        """One number by depth, for a figure.

        Never choose a site by it: these are the held-out prompts. `select_site` does that.

        Raises:
            RequestError: there is no such number.
        """
        if number not in PROFILES:
            raise RequestError(f"no profile of {number!r}; choose one of {', '.join(PROFILES)}")
        return {row.site: getattr(row, number) for row in self.rows}

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "persona": self.persona,
            "finder": self.finder,
            "effort": dict(self.effort),
            "split_hash": self.split_hash,
            "used_hash": self.used_hash,
            "held_out_hash": self.held_out_hash,
            "rows": [row.to_json() for row in self.rows],
        }
