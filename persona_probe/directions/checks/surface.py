"""Baselines that read only the surface of the text; a direction has to beat them.

Under a contrast of system prompts the text of the two classes differs by the system line, which a
bag of words recognises at once: no direction can beat that, and a gain of 0 is then the most there
is. The baseline is informative where the contrast is not written in the text, as for model_diff,
or for sets whose `texts` are replies only.

What a first look at the tokens gives without any context, the embedding layer, is a baseline too:
`captured_scores` reads it from a set that was captured there on the same conversations.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.errors import RequestError


def captured_scores(
    captured: Mapping[str, ActivationSet], train: Labelled, test: Labelled
) -> dict[str, Float[np.ndarray, " test"]]:
    """Scores of held-out examples by a difference of means in other activations of them.

    Args:
        captured: name of the baseline → activations, at one site, of the same conversations: the
            embedding layer's output, a small sentence encoder. Matched by label and id.
        train: what the direction was found on.
        test: the held-out examples.

    Raises:
        RequestError: a set lacks one of the examples.
    """
    scores = {}
    for name, activations in captured.items():
        x = activations.values[:, 0].double()
        seen, new = (x[_rows(name, activations, of.activations)] for of in (train, test))
        scores[name] = (new @ MeanDifference().fit(seen, train.y)).numpy()
    return scores


def _rows(name: str, activations: ActivationSet, wanted: ActivationSet) -> list[int]:
    """Where each wanted example is; the k-th of a label and id is the k-th there."""
    there: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(activations.labels, activations.ids, strict=True)):
        there.setdefault(key, []).append(row)
    taken: dict[tuple[str, str], int] = {}
    rows = []
    for key in zip(wanted.labels, wanted.ids, strict=True):
        occurrence = taken[key] = taken.get(key, -1) + 1
        if occurrence >= len(there.get(key, ())):
            raise RequestError(
                f"the baseline {name!r} lacks the example {key[1]!r} labelled {key[0]!r}; capture "
                "it on the same conversations"
            )
        rows.append(there[key][occurrence])
    return rows


def surface_scores(
    train: ActivationSet, train_y: Bool[Tensor, " train"], test: ActivationSet
) -> dict[str, Float[np.ndarray, " test"]]:
    """Scores of held-out texts by bag of words and by length; empty when a set has no texts.

    Both are fitted on the texts that the direction was found on: the bag of words as a logistic
    regression on word counts, the length in characters for its sign only.
    """
    if train.texts is None or test.texts is None or not any(map(str.strip, train.texts)):
        return {}
    y = train_y.numpy()
    return {
        "bag_of_words": _bag_of_words(train.texts, y, test.texts),
        "length": _length(train.texts, y, test.texts),
    }


def _bag_of_words(
    train: tuple[str, ...], y: Bool[np.ndarray, " train"], test: tuple[str, ...]
) -> Float[np.ndarray, " test"]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = CountVectorizer(token_pattern=r"\S+")
    model = make_pipeline(words, LogisticRegression(max_iter=1_000)).fit(train, y)
    return np.asarray(model.decision_function(test))


def _length(
    train: tuple[str, ...], y: Bool[np.ndarray, " train"], test: tuple[str, ...]
) -> Float[np.ndarray, " test"]:
    lengths = np.array([len(text) for text in train])
    sign = 1.0 if lengths[y].mean() >= lengths[~y].mean() else -1.0
    return sign * np.array([float(len(text)) for text in test])
