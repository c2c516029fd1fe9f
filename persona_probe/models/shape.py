"""How deep and how wide a model is, read from its configuration without loading any weights."""

from dataclasses import dataclass
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.models.ref import ModelRef


@dataclass(frozen=True)
class ModelShape:
    """What a file of vectors has to fit.

    Attributes:
        label: the model's name as results carry it.
        n_layers: number of blocks.
        d_model: width of the residual stream.
        model_type: transformers' name of the architecture, such as "llama" or "gpt2".
    """

    label: str
    n_layers: int
    d_model: int
    model_type: str


def shape_of(ref: ModelRef) -> ModelShape:
    """Read a model's configuration, from its folder or from the hub.

    Raises:
        RequestError: there is no such model, or its configuration names no depth or width.
    """
    from huggingface_hub.errors import HFValidationError
    from transformers import AutoConfig

    folder = ref.folder
    where: dict[str, Any] = (
        {"revision": ref.revision} if folder is None else {"local_files_only": True}
    )
    try:
        config = AutoConfig.from_pretrained(ref.name if folder is None else str(folder), **where)
    except (OSError, ValueError, KeyError, HFValidationError) as error:
        said = str(error).strip().split("\n")[0]
        raise RequestError(f"{ref.name} has no configuration that can be read: {said}") from error
    text = config.get_text_config()
    try:
        return ModelShape(ref.label, text.num_hidden_layers, text.hidden_size, config.model_type)
    except AttributeError as error:
        raise RequestError(f"the configuration of {ref.name} is of another kind: {error}") from None
