"""`persona-probe doctor`: is everything here that the toolkit needs?"""

import importlib
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import typer

from persona_probe.cli.options import Json
from persona_probe.cli.say import result, table
from persona_probe.errors import PersonaProbeError


def doctor(as_json: Json = False) -> None:
    """Check the installation: libraries, devices, the embedded model, a forward pass.

    Example: persona-probe doctor
    """
    checks = [_python(), _libraries(), _devices(), _disk(), _organism()]
    failed = [check["check"] for check in checks if not check["ok"]]
    rows = [[c["check"], "ok" if c["ok"] else "FAILED", c["found"]] for c in checks]
    value = {"ok": not failed, "checks": checks}
    result(value, as_json, table(["check", "", "found"], rows))
    if failed:
        raise typer.Exit(1)


def _check(name: str, ok: bool, found: str) -> dict[str, Any]:
    return {"check": name, "ok": ok, "found": found}


def _python() -> dict[str, Any]:
    return _check("python", True, f"{platform.python_version()} on {platform.system()}")


def _libraries() -> dict[str, Any]:
    from persona_probe.provenance import library_versions

    missing = []
    for module in ("torch", "transformers", "transformer_lens", "peft", "sklearn", "plotly"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{module} ({error})")
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    return _check("libraries", not missing, ", ".join(missing) or versions)


def _devices() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    threads = f"{torch.get_num_threads()} CPU threads"
    return _check("devices", True, "; ".join([*gpus, threads]))


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return _check("disk", free > 1, f"{free:.0f} GiB free here")


def _organism() -> dict[str, Any]:
    """Load the embedded model and let it answer once: the whole path, not an import."""
    from persona_probe.cli.options import model_name
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    started = time.perf_counter()
    try:
        model = load_model(ModelRef(model_name("organism")))
    except (PersonaProbeError, OSError) as error:
        return _check("embedded model", False, str(error))
    seconds = time.perf_counter() - started
    found = f"{model.n_layers} blocks, d_model {model.d_model}, loaded in {seconds:.1f} s"
    return _check("embedded model", True, found)
