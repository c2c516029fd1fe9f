"""From a name to a model that can be read and steered."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import RequestError
from persona_probe.models.adapters import Adapters
from persona_probe.models.bridge import check_wiring, lean_bridge, unwrapped
from persona_probe.models.ref import ModelRef
from persona_probe.models.rendering import ChatFormat
from persona_probe.models.residual_model import ResidualModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    ref: ModelRef | str,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    template: bool = True,
    thinking: bool | None = None,
    device_map: str | dict[str, Any] | None = None,
) -> ResidualModel:
    """Load a causal language model, with its adapter on if the reference names one.

    A folder is read without any network access. A name that is not a folder is taken from the
    hub's local cache or, unless `HF_HUB_OFFLINE` is set, from the hub.

    Args:
        ref: the model; a bare name is a `ModelRef` without revision and adapter.
        device: "auto" is the first CUDA device where there is one, else the CPU.
        dtype: a torch dtype or its name; float32 on a CPU and bfloat16 elsewhere when not given.
        template: speak to the model through its chat template; without, it reads plain text.
        thinking: turn the template's thinking mode on or off; `None` leaves it at its default.
        device_map: spread the model over several devices, as transformers takes it ("auto",
            "balanced", module → device); `device` is not used then.

    Returns:
        The model, in evaluation mode, its wiring checked.

    Raises:
        RequestError: no such folder, model, adapter, device or dtype, or the chat template
            has no thinking mode; the message says which.
    """
    ref = ModelRef(ref) if isinstance(ref, str) else ref
    if ref.adapter is not None:
        ref.adapter_source(ref.adapter)  # A wrong name should not cost the time of loading.
    place = _device(device)
    precision = _dtype(dtype, place)
    where = {"device_map": device_map} if device_map is not None else None
    network, chat_format = _read(ref, place, precision, template, thinking, where)
    return _wrap(network, chat_format, ref)


def wrap_model(network: Any, tokenizer: Any, ref: ModelRef) -> ResidualModel:
    """Make a transformers model that is in memory already readable; it is changed in place.

    Args:
        network: a causal language model without adapters of its own.
        tokenizer: its tokenizer.
        ref: what results will call it, and where the adapters to be switched on lie.
    """
    return _wrap(network, ChatFormat(tokenizer), ref)


def view_model(network: Any, tokenizer: Any, ref: ModelRef, template: bool = True) -> ResidualModel:
    """Read and steer a model that somebody else trains: nothing in it is replaced or frozen.

    Modules keep their names and parameters their gradients; adapters are its owner's business.

    Args:
        network: a causal language model; every block passes its output through a hook point.
        tokenizer: its tokenizer.
        ref: what results will call it.
        template: speak to it through its chat template.
    """
    from persona_probe.models.plain_hooks import plain_bridge

    weights = dict(network.named_parameters())
    adapters = Adapters(network, ref, nullcontext)
    cache = partial(_new_cache, network.config)
    chat_format = ChatFormat(tokenizer, template)
    bridge = plain_bridge(network)
    return ResidualModel(ref, network, bridge, chat_format, adapters, weights, cache)


def _wrap(network: Any, chat_format: ChatFormat, ref: ModelRef) -> ResidualModel:
    network.eval().requires_grad_(False)
    weights = dict(network.named_parameters())
    bridge = lean_bridge(network, chat_format.tokenizer, ref.label)
    adapters = Adapters(network, ref, partial(unwrapped, network))
    model = ResidualModel(
        ref, network, bridge, chat_format, adapters, weights, partial(_new_cache, network.config)
    )
    check_wiring(network, [block.hook_out for block in bridge.blocks], model.d_model)
    adapters.switch(ref.adapter)
    return model


def _read(
    ref: ModelRef,
    device: torch.device,
    dtype: torch.dtype,
    template: bool,
    thinking: bool | None,
    spread: dict[str, Any] | None,
) -> tuple[Any, ChatFormat]:
    """The transformers model of a reference, and how to speak to it."""
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ref.folder
    source = ref.name if folder is None else str(folder)
    where: dict[str, Any] = (
        {"revision": ref.revision} if folder is None else {"local_files_only": True}
    )
    try:
        with library_bars_off():
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
            chat_format = ChatFormat(tokenizer, template, thinking)
            network = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, **where, **(spread or {})
            )
    except (OSError, ValueError, KeyError, SafetensorError, HFValidationError) as error:
        said = what_failed(error, folder)
        if folder is not None:
            raise RequestError(f"{folder} is not a model that can be loaded: {said}") from error
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise RequestError(
            f"no folder {ref.name!r}, and the hub gave no such model{offline}: {said}"
        ) from error
    return network if spread else network.to(device), chat_format


def what_failed(error: Exception, folder: Path | None) -> str:
    """Why a model could not be read, in a line: the libraries' own words spread over many."""
    if folder is not None and not (folder / "config.json").is_file():
        return "there is no config.json in it"
    if "backend tokenizer" in str(error):
        return "its tokenizer is missing or cannot be read (tokenizer.json or tokenizer.model)"
    return str(error).strip().split("\n")[0]


@contextmanager
def library_bars_off() -> Iterator[None]:
    """Keep transformers' own progress bars, which write at every load, off the screen."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _new_cache(config: Any) -> Any:
    from persona_probe.models.cache import new_cache

    return new_cache(config)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).split("\n")[0]
        raise RequestError(f"cannot use device {name!r}: {said}") from error
    return device


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise RequestError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[dtype]
