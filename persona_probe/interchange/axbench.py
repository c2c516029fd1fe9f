"""Weights of AxBench models (Wu et al. 2025, arXiv:2501.17148): a row for every concept."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import NOT_A_NUMBER, Asked, Found
from persona_probe.interchange.torch_file import read_torch, tensor_of, write_torch
from persona_probe.models.site import Site

WEIGHT, BIAS = "_weight.pt", "_bias.pt"


@dataclass(frozen=True)
class AxBench:
    """`{Model}_weight.pt` [concept, d_model] and `{Model}_bias.pt` [concept] beside it.

    AxBench steers with weight · factor · largest activation and detects with h·weight + bias. The
    files do not say the layer, so --layer is needed to import; --pick chooses a concept's row, and
    without it every row becomes a persona, `NAME-0`, `NAME-1` …. We write one concept.

    Survive: unit; the gap where the strength is 1 gap; the midpoint, where weight and bias give 0
    (a bias of exactly 0 is read as unknown, for that is what a difference of means has).
    Lost: site and everything else.
    """

    name: ClassVar[str] = "axbench"
    suffix: ClassVar[str] = WEIGHT
    convention: ClassVar[str] = (
        "The output of a 0-based block that only the run's configuration names; pass --layer."
    )

    def read(self, path: Path, asked: Asked) -> list[Found]:
        if not path.name.endswith(WEIGHT):
            raise RequestError(f"{path} should be called <Model>{WEIGHT}")
        weights = tensor_of(read_torch(path), path, n_axes=2)
        biases = _biases(path, len(weights))
        site = Site(asked.layer_for(path))
        rows = _rows(path, len(weights), asked)
        return [
            Found(
                site,
                weights[row],
                _midpoint(weights[row], float(biases[row])),
                name=None if len(rows) == 1 else f"{asked.persona}-{row}",
            )
            for row in rows
        ]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        site = additions.only_site(self.name)
        midpoint = additions.midpoint(site)
        bias = -midpoint * abs(additions.amount(site)) if midpoint == midpoint else 0.0
        weight = additions.vectors()[site][None]
        beside = _bias_file(path)
        # Either may exist without the other for a moment; a reader wants both.
        return [write_torch(beside, torch.tensor([bias])), write_torch(path, weight)][::-1]


def _midpoint(weight: Tensor, bias: float) -> float:
    length = float(weight.double().norm())
    return NOT_A_NUMBER if bias == 0 or length == 0 else -bias / length


def _bias_file(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(WEIGHT) + BIAS)


def _biases(path: Path, n_concepts: int) -> Tensor:
    if not _bias_file(path).is_file():
        return torch.zeros(n_concepts)
    biases = tensor_of(read_torch(_bias_file(path)), _bias_file(path), n_axes=1)
    if len(biases) != n_concepts:
        raise RequestError(
            f"{_bias_file(path)} has {len(biases)} numbers for the {n_concepts} rows of {path.name}"
        )
    return biases


def _rows(path: Path, n_concepts: int, asked: Asked) -> list[int]:
    if asked.pick is None:
        return list(range(n_concepts))
    if not asked.pick.isdecimal() or int(asked.pick) >= n_concepts:
        raise RequestError(
            f"{path} holds {n_concepts} concepts; --pick one of 0 to {n_concepts - 1}, "
            f"not {asked.pick!r}"
        )
    return [int(asked.pick)]
