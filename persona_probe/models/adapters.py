"""LoRA adapters on one set of weights: attached on first use, switched, never merged."""

import json
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import RequestError
from persona_probe.models.ref import ADAPTER_CONFIG, ModelRef
from persona_probe.provenance import file_hash

WEIGHTS = "adapter_model.safetensors"


class Adapters:
    """The adapters of one network. At most one is on.

    Args:
        network: a transformers model.
        ref: says where an adapter of a given name lies.
        unwrapped: a context in which the network's modules have their own names.

    Attributes:
        active: name of the adapter that is on, as it was asked for; `None` for bare weights.
    """

    def __init__(
        self, network: Any, ref: ModelRef, unwrapped: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.active: str | None = None
        self._network = network
        self._ref = ref
        self._unwrapped = unwrapped
        self._keys: dict[Path | str, str] = {}
        self._hashes: dict[Path | str, str] = {}
        self._layers: list[Any] = []

    def switch(self, name: str | None) -> None:
        """Turn one adapter on and all others off; `None` leaves the bare weights.

        Raises:
            RequestError: there is no such adapter, or it was made for another base model. What
                was on before is on still.
        """
        if name == self.active:
            return
        key = None if name is None else self._key(name)
        self._apply(key)
        self.active = name

    @property
    def active_hash(self) -> str | None:
        """16 hexadecimal digits of the weights of the adapter that is on; `None` for none.

        Two adapters of one name in different folders differ in it, and so does one that was
        trained anew.
        """
        if self.active is None:
            return None
        return self._hashes[self._ref.adapter_source(self.active)]

    def _apply(self, key: str | None) -> None:
        for layer in self._layers:
            layer.enable_adapters(key is not None)
            if key is not None:
                layer.set_adapter(key, inference_mode=True)

    def _key(self, name: str) -> str:
        """The name under which peft knows an adapter, which may not contain a dot."""
        source = self._ref.adapter_source(name)
        if source not in self._keys:
            key = f"adapter{len(self._keys)}"
            folder = adapter_folder(source)
            try:
                # Weights that are made in inference mode could not be switched outside of it.
                with torch.inference_mode(False):
                    self._attach(key, folder, name)
            finally:
                self._restore()
            self._keys[source] = key
            self._hashes[source] = file_hash(folder / WEIGHTS)
        return self._keys[source]

    def _attach(self, key: str, folder: Path, name: str) -> None:
        """Put the adapter's layers into the network and fill them."""
        from peft import PeftConfig
        from peft.functional import (
            delete_adapter,
            inject_adapter_in_model,
            set_peft_model_state_dict,
        )
        from safetensors.torch import load_file

        _require_switchable(folder, name)
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        with self._unwrapped(), warnings.catch_warnings():
            # peft warns when a second adapter comes and when one goes; both are meant.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
            try:
                inject_adapter_in_model(config, self._network, key)
                weights = load_file(folder / WEIGHTS)
                result = set_peft_model_state_dict(self._network, weights, key)
                missing = [k for k in result.missing_keys if f".{key}." in k]
                if missing or result.unexpected_keys:
                    raise ValueError(f"no place for {(result.unexpected_keys or missing)[0]}")
            except (ValueError, RuntimeError, KeyError) as error:
                if getattr(self._network, "peft_config", {}).pop(key, None) is not None:
                    delete_adapter(self._network, key, prefix="lora_")
                raise RequestError(
                    f"adapter {name!r} does not fit {self._ref.label}; it was made for another "
                    f"base model ({_first_line(error)})"
                ) from error

    def _restore(self) -> None:
        """Attaching turns the new adapter on; back to what was on before."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [m for m in self._network.modules() if isinstance(m, BaseTunerLayer)]
        self._network.requires_grad_(False)
        self._network.eval()
        self._apply(None if self.active is None else self._key(self.active))


def adapter_folder(source: Path | str) -> Path:
    """The folder of an adapter, fetched from the hub if need be."""
    if isinstance(source, Path):
        return source
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[ADAPTER_CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"no folder {source!r}, and the hub gave no such adapter ({_first_line(error)})"
        ) from error


def _require_switchable(folder: Path, name: str) -> None:
    """Refuse what cannot be turned off again, before the network is touched."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if not (folder / WEIGHTS).is_file():
        raise RequestError(f"adapter {name!r} has no {WEIGHTS}; save it as safetensors")
    if config.get("peft_type") != "LORA":
        raise RequestError(f"adapter {name!r} is {config.get('peft_type')}, only LORA can be used")
    if config.get("bias", "none") != "none" or config.get("modules_to_save"):
        raise RequestError(
            f"adapter {name!r} also replaces biases or whole modules, which cannot be switched; "
            "merge it into a model folder and load that"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
