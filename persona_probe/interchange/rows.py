"""Matrices with a row for every block."""

from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.interchange.format import Asked


def require_depth(rows: Shaped[Tensor, "row d_model"], path: Path, asked: Asked) -> None:
    """Raise `RequestError` unless there is a row for each block of the model."""
    if asked.shape is not None and len(rows) != asked.shape.n_layers:
        raise RequestError(
            f"{path} has {len(rows)} rows, expected one for each of the {asked.shape.n_layers} "
            f"blocks of {asked.shape.label}"
        )


def along(point: Shaped[Tensor, " d_model"], vector: Shaped[Tensor, " d_model"]) -> float:
    """Coordinate of a point along a vector, in residual units; NaN along the zero vector."""
    return float(point.double() @ vector.double() / vector.double().norm())
