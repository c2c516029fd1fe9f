"""A model's folder read without any wrapping, to be changed and written as another folder."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import RequestError
from persona_probe.files import make_folder
from persona_probe.models.loading import library_bars_off, what_failed
from persona_probe.models.ref import ModelRef


def read_network(ref: ModelRef, dtype: torch.dtype = torch.float32) -> tuple[Any, Any, torch.dtype]:
    """Read a model, in float32 if not said otherwise, its reference's adapter merged into it.

    Returns:
        The transformers model, its tokenizer, and the dtype that its folder has.

    Raises:
        RequestError: there is no such model or adapter, or the adapter does not fit.
    """
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = ref.folder
    source = ref.name if folder is None else str(folder)
    where: dict[str, Any] = (
        {"revision": ref.revision} if folder is None else {"local_files_only": True}
    )
    try:
        with library_bars_off():
            config = AutoConfig.from_pretrained(source, **where)
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
            network = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **where)
    except (OSError, ValueError, KeyError, SafetensorError, HFValidationError) as error:
        said = what_failed(error, folder)
        raise RequestError(f"{ref.name} is not a model that can be loaded: {said}") from error
    if ref.adapter is not None:
        network = _merged(network, ref, ref.adapter)
    own = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return network.eval().requires_grad_(False), tokenizer, own


def write_network(folder: Path, network: Any, tokenizer: Any, dtype: torch.dtype) -> None:
    """Write what `from_pretrained` reads: weights in `dtype`, configuration and tokenizer."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    network = network.to(dtype)
    network.config.dtype = dtype
    with library_bars_off():
        network.save_pretrained(folder)
    # It has noted its own class there, but the configuration may be another architecture's by now.
    network.config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[network.config.model_type]]
    network.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def require_free(path: Path) -> None:
    """Raise `RequestError` if there is a file of this name, or a folder that holds something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RequestError(f"{path} is there already; choose another folder, or remove it")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit it becomes `path`, else it vanishes.

    Raises:
        RequestError: there is something already.
    """
    require_free(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _merged(network: Any, ref: ModelRef, adapter: str) -> Any:
    """The network with an adapter's update added to its weights."""
    from peft import PeftModel

    source = str(ref.adapter_source(adapter))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tuned = PeftModel.from_pretrained(network, source)
            return tuned.merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        said = str(error).strip().split("\n")[0][:200]
        raise RequestError(
            f"adapter {adapter!r} cannot be merged into {ref.label}; it was made for another base "
            f"model ({said})"
        ) from error
