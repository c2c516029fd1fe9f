"""GGUF files of control vectors: tensors `direction.N`, and who they are for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.files import whole
from persona_probe.interchange.format import require_file

ARCHITECTURE = "controlvector"
HINT = f"{ARCHITECTURE}.model_hint"


@dataclass(frozen=True, eq=False)
class ControlVectors:
    """What a GGUF file holds.

    Attributes:
        vectors: N → tensor `direction.N`; N as the file has it.
        texts: the text fields of its header.
    """

    vectors: Mapping[int, Shaped[Tensor, "..."]]
    texts: Mapping[str, str]


def write_gguf(
    path: Path, vectors: Mapping[int, Shaped[Tensor, " d_model"]], texts: Mapping[str, str]
) -> Path:
    """Write float32 tensors `direction.N`.

    Args:
        path: the file.
        vectors: N → vector.
        texts: further text fields of the header, without `general.architecture`.
    """
    from gguf import GGUFWriter

    with whole(path) as temporary:
        writer = GGUFWriter(temporary, ARCHITECTURE)
        try:
            for key, text in texts.items():
                writer.add_string(key, text)
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
            for number, vector in sorted(vectors.items()):
                writer.add_tensor(f"direction.{number}", vector.float().numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return path


def read_gguf(path: Path, architectures: tuple[str, ...] = (ARCHITECTURE,)) -> ControlVectors:
    """Read a control vector file.

    Args:
        path: the file.
        architectures: what `general.architecture` may say.

    Raises:
        RequestError: the file is missing, truncated, no GGUF, not one of control vectors, or lacks
            the model hint without which repeng and saklas refuse it.
    """
    require_file(path)
    reader = _reader(path)
    texts = {key: text for key in reader.fields if (text := _text(reader.fields[key])) is not None}
    if (architecture := texts.get("general.architecture")) not in architectures:
        raise RequestError(
            f"{path} is not a control vector: its architecture is {architecture!r}, "
            f"expected {ARCHITECTURE!r}"
        )
    if HINT not in texts:
        raise RequestError(f"{path} has no {HINT!r}; repeng and saklas refuse it too")
    vectors = {}
    for tensor in reader.tensors:
        match = re.fullmatch(r"direction\.(\d+)", tensor.name)
        if match is None:
            raise RequestError(
                f"{path} holds a tensor {tensor.name!r}, for which llama.cpp rejects the file; "
                "control vectors are called direction.1, direction.2 …"
            )
        vectors[int(match[1])] = _vector(tensor, path)
    return ControlVectors(vectors, texts)


def _reader(path: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    # The reader indexes into a memory map without looking where the file ends.
    except (ValueError, LookupError, TypeError, OverflowError):
        raise RequestError(f"{path} is truncated or not a GGUF file") from None


def _text(field: Any) -> str | None:
    from gguf import GGUFValueType

    if list(field.types) != [GGUFValueType.STRING]:
        return None
    return bytes(field.parts[-1]).decode("utf-8", errors="replace")


def _vector(tensor: Any, path: Path) -> Shaped[Tensor, "..."]:
    if tensor.data.dtype != np.float32 or tensor.data.ndim != 1:
        raise RequestError(
            f"{path}: {tensor.name} has shape {list(tensor.data.shape)} of "
            f"{tensor.tensor_type.name}, for which llama.cpp rejects the file; expected one axis "
            "of F32"
        )
    return torch.from_numpy(np.array(tensor.data))
