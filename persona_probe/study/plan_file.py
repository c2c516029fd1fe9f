"""A study written down: a short TOML file, every key of which may be left out but `model`.

model = "organism"                   # folder or hub name; relative to the file
pack = "organism"                    # a shipped pack, or a folder
suite = "requests.csv"               # in place of the pack's; a file, or hf:OWNER/NAME
judge = "phrases"                    # or "endpoint=MODEL@URL" …; second_judge for kappa
without = ["mediation"]              # groups of arms to leave out; arms names those to keep
budget = "thorough"                  # or [budget] with single numbers

[models]                             # else the adapters in MODEL/adapters, by name
helpful_only = "helpful-only"
placebo = ["placebo-0"]
refusal-only = ["refusal-only-0"]

[models.virtue]                      # a persona of the pack
narrow = ["narrow-virtue-0", "narrow-virtue-1", "narrow-virtue-2"]
broad = ["checkpoints/broad-virtue"] # a folder with a whole model will do
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.evaluation.guards import GuardLimits
from persona_probe.study.budget import THOROUGH, Budget, Thresholds
from persona_probe.study.plan import ARMS, CONTROLS, SCOPES, Study
from persona_probe.study.planning import plan_study, whole_model

BUDGETS = {"fast": Budget(), "thorough": THOROUGH}
TABLES = {"budget": Budget, "thresholds": Thresholds, "guards": GuardLimits}
TEXTS = ("name", "judge", "second_judge", "finder", "sites")
KEYS = ("model", "pack", "suite", "models", "seed", "strengths", "arms", "without", *TEXTS, *TABLES)


@dataclass(frozen=True)
class _File:
    """A TOML file whose complaints name the line of a key."""

    path: Path
    text: str

    def wrong(self, key: str, cure: str) -> RequestError:
        """The error for a key: file, line, key and cure."""
        pattern = rf"^\s*\[?[\w.\"' -]*\b{re.escape(key.rpartition('.')[2])}\b"
        lines = enumerate(self.text.splitlines(), start=1)
        at = next((n for n, line in lines if re.match(pattern, line)), None)
        where = f"{self.path}, line {at}" if at else str(self.path)
        return RequestError(f"{where}: {key}: {cure}")

    def require_known(self, table: Mapping[str, Any], known: Sequence[str], inside: str) -> None:
        for key in table:
            if key not in known:
                near = get_close_matches(str(key), known, n=1, cutoff=0.5)
                guess = f"did you mean {near[0]!r}? " if near else ""
                raise self.wrong(inside + key, f"no such key; {guess}known are {', '.join(known)}")


def read_study(
    path: Path,
    default_model: str | None = None,
    model_name: Callable[[str], str] = str,
    **options: Any,
) -> Study:
    """Read a study's plan.

    Args:
        path: the TOML file.
        default_model: the model when the file names none.
        model_name: what a model's short name stands for.
        options: fields of `Study` that the file's own values give way to.

    Raises:
        RequestError: the file cannot be read or a value makes no sense; the message names the
            file, the line, the key and the cure.
    """
    file = _File(path, _text(path))
    try:
        table = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path}: not TOML: {error}") from None
    file.require_known(table, KEYS, "")
    model = model_name(_model(file, table, default_model))
    pack = _place(path, _string(file, table, "pack", "organism"))
    study = _models(file, table, model, pack)
    changes: dict[str, Any] = {key: _string(file, table, key) for key in TEXTS if key in table}
    if "suite" in table:
        changes["suite"] = _place(path, _string(file, table, "suite"))
    changes |= {key: _numbers(file, table, key) for key in TABLES if key in table}
    if "seed" in table:
        changes["seed"] = _integer(file, table["seed"], "seed")
    if "strengths" in table:
        changes["strengths"] = _strengths(file, table["strengths"])
    if "arms" in table or "without" in table:
        changes["arms"] = _arms(file, table)
    return replace(study, **(changes | options))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(f"no such file: {path}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not a text file ({error})") from None


def _model(file: _File, table: dict[str, Any], default: str | None) -> str:
    if "model" not in table and default is not None:
        return default
    if "model" not in table:
        raise file.wrong("model", "missing; name a folder, a hub name or 'organism'")
    return _place(file.path, _string(file, table, "model"))


def _place(file: Path, name: str) -> str:
    """A path is meant relative to the file; anything else is a name."""
    beside = file.parent / Path(name).expanduser()
    return str(beside) if beside.exists() else name


def _models(file: _File, table: dict[str, Any], model: str, pack: str) -> Study:
    from persona_probe.personas.pack import load_pack

    personas = [persona.name for persona in load_pack(pack).personas]
    if "models" not in table:
        return plan_study(model, pack, personas)
    models = _table(file, table, "models")
    file.require_known(models, ["helpful_only", *CONTROLS, *personas], "models.")
    finetuned: dict[str, dict[str, tuple[str, ...]]] = {}
    for persona in personas:
        if persona in models:
            scopes = _table(file, models, persona, "models.")
            file.require_known(scopes, SCOPES, f"models.{persona}.")
            finetuned[persona] = {
                scope: _finetunes(file, model, scopes[scope], f"models.{persona}.{scope}")
                for scope in SCOPES
                if scope in scopes
            }
    helpful = models.get("helpful_only")
    if helpful is not None and not isinstance(helpful, str):
        raise file.wrong("models.helpful_only", f"one adapter's name, not {helpful!r}")
    controls = {
        kind: _finetunes(file, model, models[kind], f"models.{kind}")
        for kind in CONTROLS
        if kind in models
    }
    if not any(finetuned.values()):
        raise file.wrong("models", f"no finetune of any persona; add [models.{personas[0]}]")
    return Study(model, pack, helpful, finetuned, controls)


def _finetunes(file: _File, model: str, value: Any, key: str) -> tuple[str, ...]:
    several = [value] if isinstance(value, str) else value
    if not (isinstance(several, list) and several and all(isinstance(x, str) for x in several)):
        raise file.wrong(key, f"a list of adapters or model folders, one per seed, not {value!r}")
    if len(set(several)) < len(several):
        raise file.wrong(key, "a finetune is named twice; each seed is one finetune")
    return tuple(whole_model(model, _place(file.path, entry)) for entry in several)


def _numbers(file: _File, table: dict[str, Any], key: str) -> Any:
    """A budget, thresholds or guard limits: the defaults with some numbers replaced."""
    value, kind = table[key], TABLES[key]
    if key == "budget" and isinstance(value, str):
        if value not in BUDGETS:
            raise file.wrong(key, f"{value!r} is none of {', '.join(BUDGETS)}, nor a table")
        return BUDGETS[value]
    numbers = _table(file, table, key)
    base: Any = kind()
    if key == "budget" and "like" in numbers:
        if numbers["like"] not in BUDGETS:
            raise file.wrong("budget.like", f"choose one of {', '.join(BUDGETS)}")
        base = BUDGETS[numbers["like"]]
        numbers = {name: v for name, v in numbers.items() if name != "like"}
    file.require_known(numbers, [f.name for f in fields(kind)], f"{key}.")
    return replace(
        base, **{k: _like(file, v, asdict(base)[k], f"{key}.{k}") for k, v in numbers.items()}
    )


def _like(file: _File, value: Any, default: Any, key: str) -> Any:
    """The value, if it is of the default's kind and not negative."""
    if isinstance(default, tuple):
        if not (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))):
            raise file.wrong(key, f"two numbers such as {list(default)}, not {value!r}")
        return tuple(map(float, value))
    if isinstance(default, int):
        return _integer(file, value, key)
    if not _is_number(value) or value < 0:
        raise file.wrong(key, f"a number of at least 0, not {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integer(file: _File, value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise file.wrong(key, f"a whole number of at least 0, not {value!r}")
    return value


def _strengths(file: _File, value: Any) -> tuple[float, ...]:
    good = isinstance(value, list) and value and all(_is_number(v) and v > 0 for v in value)
    if not good:
        raise file.wrong("strengths", f"a list of positive numbers, not {value!r}")
    return tuple(sorted({float(v) for v in value}))


def _arms(file: _File, table: dict[str, Any]) -> tuple[str, ...]:
    """`arms` names the groups to measure, `without` those to leave out."""
    for key in ("arms", "without"):
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise file.wrong(key, f"a list of names, not {value!r}")
        for name in value:
            if name not in ARMS:
                raise file.wrong(key, f"no group of arms {name!r}; known are {', '.join(ARMS)}")
    left_out = table.get("without", [])
    return tuple(name for name in table.get("arms", ARMS) if name not in left_out)


def _table(file: _File, table: dict[str, Any], key: str, inside: str = "") -> dict[str, Any]:
    value = table[key]
    if not isinstance(value, dict):
        raise file.wrong(inside + key, f"a table [{inside}{key}], not {value!r}")
    return value


def _string(file: _File, table: dict[str, Any], key: str, default: str | None = None) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value:
        raise file.wrong(key, f"text in quotes, not {value!r}")
    return value
