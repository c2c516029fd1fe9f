"""How a finetune is trained: what decides the result, and what decides only how it gets there."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from persona_probe.errors import RequestError
from persona_probe.files import read_toml

ALL_LINEAR = "all-linear"
RECIPE_FILE = "finetuning.toml"
Precision = Literal["float32", "bfloat16"]
TrainDevice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class LoraRecipe:
    """How an adapter is trained.

    Attributes:
        rank: of each factor pair. alpha: LoRA's numerator; the update is scaled by alpha / rank.
        targets: names of the projections to adapt, e.g. `v_proj`; "all-linear" is every linear
            layer inside the blocks.
        layers: block numbers; `None` adapts all of them.
        epochs: passes over the conversations. batch_size: conversations per step and device.
        learning_rate: peak; 10% linear warm-up, then linear decay to zero.
        seed: of the factors' initial values and of the order of conversations.
        rslora: scale by alpha / √rank instead (rank-stabilised LoRA, arXiv:2312.03732).
        dora: also learn each output's magnitude (DoRA, arXiv:2402.09353).
        full: no adapter: train every weight. Ranks, targets and layers are not used then.
    """

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("v_proj", "o_proj")
    layers: tuple[int, ...] | None = None
    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    rslora: bool = False
    dora: bool = False
    full: bool = False

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch_size", "alpha", "learning_rate"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be positive, got {getattr(self, name)}")
        if self.full and (self.rslora or self.dora):
            raise RequestError(
                "rslora and dora are ways to train an adapter, full trains every weight; leave one "
                "of them out"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dict; switches that are off are left out."""
        return {key: value for key, value in asdict(self).items() if value is not False}


DEFAULT = LoraRecipe(rank=16, alpha=32.0, targets=(ALL_LINEAR,), learning_rate=1e-4)
"""For chat models of ordinary size, where their folder says nothing else."""


@dataclass(frozen=True)
class Run:
    """How a training run proceeds, on which machine; the result hardly depends on it.

    Attributes:
        accumulate: batches whose gradients are added up before a step.
        packing: lay the conversations of a batch end to end instead of padding them, and compute
            logits at the learnt tokens only.
        gradient_checkpointing: compute activations twice instead of keeping them.
        precision: "bfloat16" trains under autocast; adapters and optimiser stay in float32.
        device: "cpu" is the processor; "auto" is an accelerator if there is one, "cuda" insists.
            Several train together by `accelerate launch`.
        evaluate_every: steps between evaluations of the held-out loss; each epoch if `None`.
        save_every: steps between checkpoints; each epoch if `None`, never if 0.
        patience: stop after so many evaluations without a lower held-out loss, and keep the best;
            `None` never stops early.
    """

    accumulate: int = 1
    packing: bool = False
    gradient_checkpointing: bool = False
    precision: str = "float32"
    device: str = "auto"
    evaluate_every: int | None = None
    save_every: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise RequestError(
                f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}"
            )
        if self.device not in get_args(TrainDevice):
            raise RequestError(
                f"the device of training must be one of {', '.join(get_args(TrainDevice))}, got "
                f"{self.device!r}; CUDA_VISIBLE_DEVICES chooses among several accelerators"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def recipe_for(model_folder: Path | None, file: Path | None = None, **given: Any) -> LoraRecipe:
    """The recipe of a file, else the one that lies in the model's folder, else the default.

    A recipe file is TOML whose keys are the fields of `LoraRecipe`. A model that needs another
    recipe than most says so by a `finetuning.toml` in its folder.

    Args:
        model_folder: where to look for a `finetuning.toml`; `None` for a hub name.
        file: read instead.
        given: fields that win over any file; `None` is not given.

    Raises:
        RequestError: the file is missing, or a key is unknown or of another type.
    """
    found = DEFAULT
    inside = None if model_folder is None else model_folder / RECIPE_FILE
    path = file or (inside if inside is not None and inside.is_file() else None)
    if path is not None:
        found = replace(found, **_read(path))
    return replace(found, **{key: value for key, value in given.items() if value is not None})


def sample_method_for(model_folder: Path | None, given: str | None = None) -> str:
    """How samples are written with a model: as given, as its folder says, else by critique.

    The folder says it by `method` of [samples]. A model that was never taught to criticise its
    drafts says "system".
    """
    path = None if model_folder is None else model_folder / RECIPE_FILE
    if given is not None or path is None or not path.is_file():
        return given or "critique"
    return str(read_toml(path).get("samples", {}).get("method", "critique"))


def recipe_toml(recipe: LoraRecipe, method: str | None = None) -> str:
    """A recipe as the file that `recipe_for` reads; its seed belongs to a run and is left out.

    `method` is how the model writes samples, see `sample_method_for`.
    """
    lines = ["# How adapters of this model are best trained: read by `persona-probe finetune`."]
    for key, value in recipe.to_json().items():
        if key == "seed" or value is None:
            continue
        # JSON's numbers, lists of strings and switches are TOML as they are.
        lines.append(f"{key} = {json.dumps(value)}")
    if method is not None:
        lines += ["", "[samples]", f'method = "{method}"']
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    table = read_toml(path)
    table.pop("samples", None)
    kinds = {f.name: type(getattr(DEFAULT, f.name)) for f in fields(LoraRecipe)}
    kinds["layers"] = tuple
    for key, value in table.items():
        if key not in kinds:
            raise RequestError(f"{path}: unknown key {key!r}; a recipe has {', '.join(kinds)}")
        table[key] = _cast(path, key, value, kinds[key])
    return table


def _cast(path: Path, key: str, value: Any, kind: type) -> Any:
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        wanted = "a list" if kind is tuple else f"of type {kind.__name__}"
        raise RequestError(f"{path}: {key} must be {wanted}, got {value!r}")
    return value
