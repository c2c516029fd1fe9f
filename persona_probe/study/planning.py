"""A plan without a file: from the names of adapters, or from finetunes named one by one."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.models.ref import ADAPTER_CONFIG, ModelRef
from persona_probe.study.plan import CHECKPOINT, CONTROLS, SCOPES, Study

HELPFUL_ONLY = "helpful-only"


def plan_study(model: str, pack: str, personas: Sequence[str], **options: Any) -> Study:
    """Plan a study of a model folder by the names of its adapters.

    `adapters/helpful-only` is the model before; `adapters/narrow-deontology-0` the finetune of
    one persona, scope and seed; `adapters/placebo-0` a control. Whatever is missing is not
    studied.

    Args:
        model: a folder with an `adapters` folder in it.
        pack: name or folder of the pack.
        personas: the pack's personas, in its order.
        options: further fields of `Study`, for instance `budget` or `seed`.

    Raises:
        RequestError: no adapter is named after a persona of the pack.
    """
    names = list(ModelRef(model).adapters())
    finetuned: dict[str, dict[str, tuple[str, ...]]] = {}
    for persona in personas:
        scopes = {scope: _seeds(names, f"{scope}-{persona}") for scope in SCOPES}
        if found := {scope: adapters for scope, adapters in scopes.items() if adapters}:
            finetuned[persona] = found
    if not finetuned and not Path(model).is_dir():
        raise RequestError(
            f"no folder {model}; the finetunes of a hub model are named one by one, with "
            "--finetuned PERSONA=ADAPTER or in a study file"
        )
    if not finetuned:
        raise RequestError(
            f"{Path(model) / 'adapters'} holds no finetune named like 'narrow-{personas[0]}-0' "
            f"(found: {', '.join(names) or 'nothing'}); name adapters after their scope, persona "
            "and seed, list them with --finetuned PERSONA=ADAPTER, or write a study.toml"
        )
    return Study(
        model=model,
        pack=pack,
        helpful_only=HELPFUL_ONLY if HELPFUL_ONLY in names else None,
        finetuned=finetuned,
        controls={kind: adapters for kind in CONTROLS if (adapters := _seeds(names, kind))},
        **options,
    )


def name_models(
    model: str,
    pack: str,
    personas: Sequence[str],
    helpful_only: str | None,
    finetuned: Sequence[str],
    controls: Sequence[str] = (),
    **options: Any,
) -> Study:
    """Plan a study of finetunes that are named one by one.

    Args:
        model: folder or hub name of the weights.
        pack: name or folder of the pack.
        personas: the pack's personas.
        helpful_only: adapter of the model before; `None` for bare weights.
        finetuned: "PERSONA=FINETUNE" or "PERSONA/broad=FINETUNE" each; several of one persona and
            scope are its seeds. A finetune is an adapter, a folder with a whole model, or
            "model:NAME" for a whole model on the hub.
        controls: "KIND=FINETUNE" each.
        options: further fields of `Study`.

    Raises:
        RequestError: an entry has another form, or names an unknown persona or kind.
    """
    form = "PERSONA=FINETUNE or PERSONA/broad=FINETUNE"
    known = {name: (name, SCOPES[0]) for name in personas}
    known |= {f"{name}/{scope}": (name, scope) for name in personas for scope in SCOPES}
    named: dict[str, dict[str, tuple[str, ...]]] = {}
    for key, entries in _pairs(model, finetuned, known, "--finetuned", form, personas).items():
        persona, scope = known[key]
        of = named.setdefault(persona, {})
        of[scope] = (*of.get(scope, ()), *entries)
    kinds = dict.fromkeys(CONTROLS, ("", ""))
    return Study(
        model=model,
        pack=pack,
        helpful_only=helpful_only,
        finetuned={name: named[name] for name in personas if name in named},
        controls=_pairs(model, controls, kinds, "--control", "KIND=FINETUNE", CONTROLS),
        **options,
    )


def whole_model(model: str, finetune: str) -> str:
    """The finetune as a plan has it: folders that hold a whole model are marked as such."""
    folder = Path(finetune).expanduser()
    inside = Path(model).expanduser() / "adapters" / finetune
    if (inside / ADAPTER_CONFIG).is_file() or (folder / ADAPTER_CONFIG).is_file():
        return finetune
    return CHECKPOINT + finetune if (folder / "config.json").is_file() else finetune


def _pairs(
    model: str,
    entries: Sequence[str],
    known: Mapping[str, Any],
    option: str,
    form: str,
    choices: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, equals, finetune = entry.partition("=")
        if not (equals and finetune) or name not in known:
            raise RequestError(
                f"{option} {entry!r}: write {form} with one of {', '.join(choices)} before the ="
            )
        found[name] = (*found.get(name, ()), whole_model(model, finetune))
    return {name: found[name] for name in known if name in found}


def _seeds(names: Sequence[str], stem: str) -> tuple[str, ...]:
    return tuple(name for name in names if re.fullmatch(rf"{re.escape(stem)}(-\d+)?", name))
