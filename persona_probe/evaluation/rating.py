"""Statements rated on a scale, read from log-probabilities: no reply is ever generated.

Every statement is put to the model in several forms (three stems, digits or letters as labels, the
labels rising or falling with agreement). In each form the next-token probabilities of the labels
are read: the tokens that can begin a label are added up, the labels are normalised among each
other, and the expected option is mapped to [-1, 1], +1 for full agreement. What share of all
probability fell on any label is recorded; where it is less than half, the model is not answering
in labels, and the options' own words are scored instead, by their log-probability per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.contrast import under
from persona_probe.errors import RequestError
from persona_probe.evaluation.first_token import first_token
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.diagnostic import Form, Item, Scale
from persona_probe.steering.arm import Arm
from persona_probe.steering.scoring import next_token_log_probabilities, reply_log_probabilities

LEAST_MASS = 0.5
FORMS = 4  # of each statement, unless more are asked for: both orders × digits and letters
ReadBy = Literal["auto", "labels", "words"]


@dataclass(frozen=True)
class Ratings:
    """How far each arm agrees with each statement.

    Attributes:
        agreement: in [-1, 1], in each form.
        label_mass: probability that the answer begins with any label, in each form.
        forms: the forms, in order.
        in_words: which statements were read from the options' words instead of the labels.
    """

    agreement: Float[np.ndarray, "arm item form"]
    label_mass: Float[np.ndarray, "arm item form"]
    forms: tuple[Form, ...]
    in_words: Bool[np.ndarray, " item"]


def rate(
    model: ResidualModel,
    items: Sequence[Item],
    scale: Scale,
    arms: Sequence[Arm],
    system: str = "",
    n_forms: int = FORMS,
    read_by: ReadBy = "auto",
) -> Ratings:
    """Rate statements under every arm.

    Args:
        model: left as it was found.
        items: statements.
        scale: options, labels and stems.
        arms: one row each.
        system: the system line; empty for none.
        n_forms: how many forms of each statement; multiples of four are balanced.
        read_by: "labels", "words", or "auto": in words where any arm puts less than half of its
            probability on the labels, so that all arms are read alike.

    Raises:
        RequestError: the tokenizer cannot tell the labels apart by their first token.
    """
    forms = scale.forms(n_forms)
    agreement, mass = _by_labels(model, items, scale, forms, arms, system)
    unclear = mass.mean(axis=2).min(axis=0) < LEAST_MASS
    in_words = {"auto": unclear, "words": np.ones_like(unclear), "labels": np.zeros_like(unclear)}
    chosen = in_words[read_by].astype(bool)
    if chosen.any():
        some = [item for item, words in zip(items, chosen, strict=True) if words]
        agreement[:, chosen] = _by_words(model, some, scale, forms, arms, system)
    return Ratings(agreement, mass, forms, chosen)


def _by_labels(
    model: ResidualModel,
    items: Sequence[Item],
    scale: Scale,
    forms: Sequence[Form],
    arms: Sequence[Arm],
    system: str,
) -> tuple[Float[np.ndarray, "arm item form"], Float[np.ndarray, "arm item form"]]:
    asked = [under(system, scale.ask(i.text, f), id=i.id) for i in items for f in forms]
    beginnings = {
        name: label_tokens(model, asked[0], labels) for name, labels in scale.labels.items()
    }
    tokens = sorted({t for several in beginnings.values() for one in several for t in one})
    place = {token: n for n, token in enumerate(tokens)}
    log_p = next_token_log_probabilities(
        model, asked, arms, tokens, description="Rating statements"
    ).double()
    log_p = log_p.reshape(len(arms), len(items), len(forms), len(tokens))
    agreement = np.zeros(log_p.shape[:3])
    mass = np.zeros(log_p.shape[:3])
    for f, form in enumerate(forms):
        options = torch.stack(
            [
                log_p[:, :, f, [place[t] for t in one]].logsumexp(dim=-1)
                for one in beginnings[form.labels]
            ],
            dim=-1,
        )
        mass[:, :, f] = options.exp().sum(dim=-1).numpy()
        agreement[:, :, f] = _expected(options, form.descending)
    return agreement, mass


def _by_words(
    model: ResidualModel,
    items: Sequence[Item],
    scale: Scale,
    forms: Sequence[Form],
    arms: Sequence[Arm],
    system: str,
) -> Float[np.ndarray, "arm item form"]:
    """Labels play no part in words, so forms that differ in them only are scored once."""
    distinct = list(dict.fromkeys((form.stem, form.descending) for form in forms))
    representative = [next(f for f in forms if (f.stem, f.descending) == d) for d in distinct]
    replies = [
        under(system, scale.ask_in_words(item.text, form), id=item.id).with_reply(option)
        for item in items
        for form in representative
        for option in scale.options
    ]
    scores = reply_log_probabilities(model, replies, arms, description="Rating in words")
    shape = (len(arms), len(items), len(distinct), len(scale.options))
    options = scores.per_token.double().reshape(shape)
    found = _expected(options, descending=False)
    return found[:, :, [distinct.index((form.stem, form.descending)) for form in forms]]


def _expected(options: Float[Tensor, "*axes option"], descending: bool) -> np.ndarray:
    """Expected agreement in [-1, 1]: softmax over the options only."""
    values = torch.linspace(1.0, -1.0, options.shape[-1], dtype=options.dtype)
    values = values.flip(0) if descending else values
    found: np.ndarray = (options.softmax(dim=-1) @ values).numpy()
    return found


def label_tokens(
    model: ResidualModel, asked: Conversation, labels: Sequence[str]
) -> list[tuple[int, ...]]:
    """For each label the tokens that a reply of that label may begin with.

    A label is spelt bare or after a blank. A token that begins several labels (the blank itself,
    in some tokenizers) says nothing and is left out.

    Raises:
        RequestError: nothing is left of a label.
    """
    several = [
        {first_token(model, asked, spelling) for spelling in (label, f" {label}")}
        for label in labels
    ]
    found = [
        own - {t for j, other in enumerate(several) if j != i for t in other}
        for i, own in enumerate(several)
    ]
    for label, own in zip(labels, found, strict=True):
        if not own:
            raise RequestError(
                f"the tokenizer of {model.label} begins the label {label!r} like another one of "
                f"{', '.join(labels)}; give the scale other labels in pack.toml"
            )
    return [tuple(sorted(own)) for own in found]
