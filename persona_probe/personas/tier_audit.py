"""Is what a pack holds out really held out? Overlap of T2 categories with all that is not T2.

A category that was "filtered out" must not come back in other words. Every harmful T2 request,
and every paraphrase of one, is therefore compared, in words and in meaning, with everything that
finding, selecting or narrow finetuning may see: questions, system lines, and all prompts of T0 and
T1 categories.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.errors import RequestError
from persona_probe.personas.ngrams import shared_run, words
from persona_probe.personas.pack import Pack

Embedding = Callable[[Sequence[str]], Float[np.ndarray, "text dim"]]
LONGEST_RUN = 3  # content words of a shared run; frames such as "How do I get …" have fewer
NEAREST = 0.6  # cosine of TF-IDF vectors; of another embedding it is reported, not judged
TFIDF = "TF-IDF of words and word pairs, stop words left out (scikit-learn)"


@dataclass(frozen=True)
class Overlap:
    """One held-out text and what comes nearest to it.

    Attributes:
        id: of the held-out prompt. text: its words.
        run: of the runs of words that it shares with a text it is held out from, the one with
            most content words (words that are no stop words).
        content: how many content words that run has.
        nearest: the text with the most similar embedding. cosine: the similarity.
    """

    id: str
    text: str
    run: str
    content: int
    nearest: str
    cosine: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class TierAudit:
    """What was compared, how, and what was found.

    Attributes:
        pack, pack_hash: what was audited.
        held_out: harmful T2 prompts and their paraphrases. seen: texts that they are held out from.
        embedding: what the cosines are of, in words.
        overlaps: one per held-out prompt, the most similar first.
        unrelated: for comparison, the mean over T0 and T1 prompts of the cosine to the nearest
            prompt of another category: what unrelated categories of one suite have in common.
        judged: whether the cosines are held against `NEAREST`; they are for TF-IDF only.
    """

    pack: str
    pack_hash: str
    held_out: int
    seen: int
    embedding: str
    overlaps: tuple[Overlap, ...]
    unrelated: float
    judged: bool

    @property
    def mean(self) -> float:
        """Mean over held-out prompts of the cosine to the nearest text that is seen."""
        return float(np.mean([o.cosine for o in self.overlaps]))

    @property
    def leaks(self) -> tuple[Overlap, ...]:
        """Held-out prompts too near to something seen."""
        return tuple(
            o
            for o in self.overlaps
            if o.content > LONGEST_RUN or (self.judged and o.cosine >= NEAREST)
        )

    def to_json(self) -> dict[str, Any]:
        about = {k: v for k, v in vars(self).items() if k != "overlaps"}
        return about | {
            "longest_run_allowed": LONGEST_RUN,
            "cosine_allowed": NEAREST if self.judged else None,
            "mean_cosine": self.mean,
            "leaks": [o.to_json() for o in self.leaks],
            "nearest": [o.to_json() for o in self.overlaps[:10]],
            "longest_runs": [
                o.to_json() for o in sorted(self.overlaps, key=lambda o: -o.content)[:10]
            ],
        }


def audit_tiers(pack: Pack, embed: Embedding | None = None, embedding: str = TFIDF) -> TierAudit:
    """Compare every harmful T2 prompt and paraphrase with everything that it is held out from.

    Args:
        pack: its suite, questions and system lines are compared.
        embed: texts to vectors, for instance a model's own; TF-IDF if not given.
        embedding: what `embed` does, in words, for the record.

    Raises:
        RequestError: the pack has no harmful T2 prompts.
    """
    held = pack.suite.of(kind="harmful", tiers=["T2"]).prompts
    if not held:
        raise RequestError(f"pack {pack.name!r} has no harmful T2 prompts to audit")
    words_of = pack.robustness.paraphrases
    held += tuple(
        replace(prompt, id=f"{prompt.id}-paraphrase", text=words_of[prompt.id])
        for prompt in held
        if prompt.id in words_of
    )
    prompts = pack.suite.of(tiers=["T0", "T1"]).prompts
    seen = [prompt.text for prompt in prompts] + [question.text for question in pack.questions]
    seen += [line for p in (*pack.personas, *pack.foils) for line in p.system_prompts]
    vectors = (embed or tfidf)([*(p.text for p in held), *seen])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = unit[: len(held)] @ unit[len(held) :].T
    overlaps = []
    for prompt, row in zip(held, cosines, strict=True):
        run = max((shared_run(prompt.text, text) for text in seen), key=_content)
        nearest = int(row.argmax())
        overlaps.append(
            Overlap(prompt.id, prompt.text, run, _content(run), seen[nearest], float(row[nearest]))
        )
    own = unit[len(held) : len(held) + len(prompts)]
    category = np.array([prompt.category for prompt in prompts])
    among = np.where(category[:, None] == category, -1.0, own @ own.T)
    return TierAudit(
        pack.name,
        pack.hash,
        len(held),
        len(seen),
        embedding,
        tuple(sorted(overlaps, key=lambda o: -o.cosine)),
        float(among.max(axis=1).mean()),
        embed is None,
    )


def _content(run: str) -> int:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return sum(word not in ENGLISH_STOP_WORDS for word in words(run))


def tfidf(texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
    """TF-IDF vectors of words and word pairs, sublinear in counts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, stop_words="english")
    found: np.ndarray = vectorizer.fit_transform(texts).toarray()
    return found
