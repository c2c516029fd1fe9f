"""Does anything held out occur in what a model is to learn from?

What a finetune must not have seen are the harm categories it will be tested on, and every prompt
and diagnostic item that evaluates. Three checks, from the plainest on:

    category   no harmful sample is labelled with a held-out category
    n-gram     no message of a sample shares a run of words with a held-out text, nor holds one
    embedding  no harmful prompt of a sample is nearer to the mean of a held-out category than to
               that of every category that may be learnt, by more than all but `ALLOWED` of the
               pack's own permitted prompts are

The embedding check states its power: the share of the pack's held-out prompts that it catches, as
each is compared with the other families' means only. Where that is less than `SEEING` the check is
blind: it flags nothing, and says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.errors import SplitLeakError
from persona_probe.models.chat import Conversation
from persona_probe.personas.ngrams import words as words_of
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.tier_audit import Embedding

WORDS_IN_A_ROW = 8
ALLOWED = 0.01
ROUNDING = 1e-6  # cosines that differ by less are ties
SEEING = 0.5  # least power of an embedding check that is used


@dataclass(frozen=True)
class Leak:
    """One sample that holds something it must not.

    Attributes:
        sample: its id.
        check: "category", "n-gram" or "embedding".
        held_out: id of what was found, or the category.
        evidence: the words, or the numbers.
    """

    sample: str
    check: str
    held_out: str
    evidence: str

    def to_json(self) -> dict[str, str]:
        return dict(vars(self))


@dataclass(frozen=True)
class Audit:
    """What was compared, and everything that was found.

    Attributes:
        samples: how many were audited.
        held_out: texts that they were compared with.
        words: length of a run of words that counts as shared.
        embedding: which embedding was used; `None` for none.
        power: share of held-out prompts that the embedding check catches; NaN without one.
        false_alarms: share of prompts that may be learnt and that it flags all the same.
        leaks: sample by sample.
    """

    samples: int
    held_out: int
    words: int
    embedding: str | None
    power: float
    false_alarms: float
    leaks: tuple[Leak, ...]
    categories: tuple[str, ...] = ()

    @property
    def leaking(self) -> frozenset[str]:
        """Ids of the samples with a leak."""
        return frozenset(leak.sample for leak in self.leaks)

    def check(self) -> "Audit":
        """Return itself, or raise `SplitLeakError` if anything leaked."""
        if self.leaks:
            first = self.leaks[0]
            raise SplitLeakError(
                f"{len(self.leaking)} of {self.samples} samples hold something that is held out; "
                f"the first, {first.sample!r}, by its {first.check}: {first.evidence} "
                f"({first.held_out}); remove them"
            )
        return self

    @property
    def said(self) -> str:
        """The audit in one line."""
        return self.told(self.to_json())

    @staticmethod
    def told(audit: Mapping[str, Any]) -> str:
        """The same of an audit that was written down."""
        leaking = len({leak["sample"] for leak in audit["leaks"]})
        text = (
            f"audit of {audit['samples']} samples against {audit['held_out_texts']} held-out "
            f"texts: {leaking or 'none'} leak{'s' if leaking < 2 else ''}; "
        )
        if audit["power"] is None:
            return text + "no embedding check was possible"
        if audit["power"] < SEEING:
            return text + (
                f"the embedding check ({audit['embedding']}) is blind: it would catch "
                f"{audit['power']:.0%} of held-out prompts, so it flags nothing"
            )
        return text + (
            f"the embedding check ({audit['embedding']}) catches {audit['power']:.0%} of held-out "
            f"prompts and {audit['false_alarms']:.0%} of permitted ones"
        )

    def to_json(self) -> dict[str, Any]:
        numbers = {"power": self.power, "false_alarms": self.false_alarms}
        return {
            "samples": self.samples,
            "held_out_texts": self.held_out,
            "held_out_categories": list(self.categories),
            "words_in_a_row": self.words,
            "embedding": self.embedding,
            **{k: None if v != v else v for k, v in numbers.items()},
            "leaks": [leak.to_json() for leak in self.leaks],
        }


@dataclass(frozen=True)
class HeldOut:
    """What must not occur, and what may.

    Attributes:
        texts: id → text that nothing may share a run of words with.
        categories: harm categories that nothing may be about.
        prompts: harmful prompts of those categories.
        permitted: prompts that may be learnt from, for comparison.
    """

    texts: Mapping[str, str]
    categories: tuple[str, ...]
    prompts: tuple[SafetyPrompt, ...]
    permitted: tuple[SafetyPrompt, ...] = field(default=())


def held_out_of(pack: Pack, learnt: Iterable[str], seed: int = 0) -> HeldOut:
    """What a pack holds out from a finetune on some categories.

    Texts are all diagnostic items, all multiple-choice questions, and all safety prompts outside
    the find part, with their paraphrases.

    Args:
        pack: the pack.
        learnt: categories of the finetune.
        seed: of the pack's split.
    """
    mine = set(learnt)
    split = pack.split(seed)
    texts = {item.id: item.text for item in pack.diagnostic.items}
    texts |= {question.id: question.text for question in pack.multiple_choice}
    kept = [p for p in pack.suite.prompts if p.family not in split.find]
    texts |= {p.id: p.text for p in kept}
    words = pack.robustness.paraphrases
    texts |= {f"{p.id}, paraphrase": words[p.id] for p in kept if p.id in words}
    harmful = [p for p in pack.suite.prompts if p.kind == "harmful"]
    return HeldOut(
        texts=texts,
        categories=tuple(c for c in pack.suite.categories if c not in mine),
        prompts=tuple(p for p in harmful if p.category not in mine),
        permitted=tuple(p for p in harmful if p.category in mine),
    )


def audit(
    samples: Sequence[Conversation],
    held_out: HeldOut,
    embedder: Embedding | None = None,
    embedding: str | None = None,
    words: int = WORDS_IN_A_ROW,
) -> Audit:
    """Compare samples with what is held out.

    Args:
        samples: conversations with `kind` and `category` in their metadata, where known.
        held_out: see `held_out_of`.
        embedder: texts to vectors; without one, the embedding check is left out and said so.
        embedding: what the embedder is called.
        words: length of a shared run of words that counts.
    """
    leaks = [*_by_category(samples, held_out), *_by_words(samples, held_out, words)]
    power = false_alarms = float("nan")
    families = [{p.family for p in side} for side in (held_out.prompts, held_out.permitted)]
    if embedder is not None and min(map(len, families)) > 1:
        found, power, false_alarms = _by_embedding(samples, held_out, embedder)
        leaks += found
    return Audit(
        samples=len(samples),
        held_out=len(held_out.texts),
        words=words,
        embedding=embedding if embedder is not None else None,
        power=power,
        false_alarms=false_alarms,
        leaks=tuple(leaks),
        categories=held_out.categories,
    )


def _by_category(samples: Sequence[Conversation], held_out: HeldOut) -> list[Leak]:
    found = []
    for sample in samples:
        category = sample.metadata.get("category")
        benign = sample.metadata.get("kind") == "benign"  # of whichever topic
        if category in held_out.categories and not benign:
            evidence = f"the sample is labelled {category!r}"
            found.append(Leak(str(sample.id), "category", str(category), evidence))
    return found


def _by_words(samples: Sequence[Conversation], held_out: HeldOut, words: int) -> list[Leak]:
    runs: dict[tuple[str, ...], str] = {}
    for name, text in held_out.texts.items():
        said = words_of(text)
        # A text shorter than a run counts as a whole.
        for run in _runs(said, min(words, max(len(said), 1))):
            runs.setdefault(run, name)
    lengths = sorted({len(run) for run in runs if len(run) >= SHORTEST})
    found = []
    for sample in samples:
        hit = _first_hit(sample, runs, lengths)
        if hit is not None:
            run, name = hit
            found.append(Leak(str(sample.id), "n-gram", name, f"the words {' '.join(run)!r}"))
    return found


SHORTEST = 4
"""Held-out texts of fewer words are no evidence: anybody may say them."""


def _first_hit(
    sample: Conversation, runs: Mapping[tuple[str, ...], str], lengths: Sequence[int]
) -> tuple[tuple[str, ...], str] | None:
    for message in sample.messages:
        said = words_of(message.content) if message.role != "system" else ()
        for length in lengths:
            for run in _runs(said, length):
                if run in runs:
                    return run, runs[run]
    return None


def _runs(words: tuple[str, ...], n: int) -> Iterable[tuple[str, ...]]:
    return (words[i : i + n] for i in range(len(words) - n + 1))


def _by_embedding(
    samples: Sequence[Conversation], held_out: HeldOut, embedder: Embedding
) -> tuple[list[Leak], float, float]:
    """Leaks, power and false alarms of the nearest-neighbour comparison."""
    prompts = (*held_out.prompts, *held_out.permitted)
    asked = [s for s in samples if s.metadata.get("kind", "harmful") == "harmful"]
    said = ["\n".join(m.content for m in s.messages if m.role == "user") for s in asked]
    texts = [*(p.text for p in prompts), *said]
    raw = np.asarray(embedder(texts), dtype=np.float64)
    vectors = _centred(raw, len(prompts))
    known, new = vectors[: len(prompts)], vectors[len(prompts) :]
    categories = np.array([p.category for p in prompts])
    families = np.array([p.family for p in prompts])
    bad = np.array([p.category in held_out.categories for p in prompts])
    # Each prompt against the means of all families but its own.
    own = np.empty(len(prompts))
    for family in dict.fromkeys(families):
        inside = families == family
        rest = _margins(known[inside], known[~inside], categories[~inside], bad[~inside])[0]
        own[inside] = rest
    threshold = max(float(np.quantile(own[~bad], 1 - ALLOWED, method="higher")), ROUNDING)
    power, false_alarms = (
        float((own[bad] > threshold).mean()),
        float((own[~bad] > threshold).mean()),
    )
    margins, nearest = _margins(new, known, categories, bad)
    # An embedding by words says nothing of a text that shares none with the prompts.
    margins[~raw[len(prompts) :].any(axis=1)] = -np.inf
    found = [
        Leak(
            str(sample.id),
            "embedding",
            str(category),
            f"its prompt is nearer to them than to any that may be learnt, by {margin:.3f}",
        )
        for sample, margin, category in zip(asked, margins, nearest, strict=True)
        if margin > threshold and power >= SEEING
    ]
    return found, power, false_alarms


def _centred(
    vectors: Float[np.ndarray, "text width"], n_reference: int
) -> Float[np.ndarray, "text width"]:
    """Unit vectors about the mean of the reference texts: what all texts share says nothing."""
    moved = vectors - vectors[:n_reference].mean(axis=0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    unit: np.ndarray = moved / np.where(lengths > 0, lengths, 1.0)
    return unit


def _margins(
    x: Float[np.ndarray, "text width"],
    known: Float[np.ndarray, "prompt width"],
    categories: np.ndarray,
    bad: Bool[np.ndarray, " prompt"],
) -> tuple[Float[np.ndarray, " text"], np.ndarray]:
    """Cosine with the nearest held-out category's mean minus that with the nearest permitted one's.

    Returns:
        The margins, and the nearest held-out category of each.
    """
    best, names = [], np.array([])
    for kind in (bad, ~bad):
        names_of = np.unique(categories[kind])
        means = np.stack([known[kind & (categories == name)].mean(axis=0) for name in names_of])
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        cosines = x @ (means / np.where(lengths > 0, lengths, 1.0)).T
        best.append(cosines.max(axis=1))
        if kind is bad:
            names = names_of[cosines.argmax(axis=1)]
    return best[0] - best[1], names
