"""Rows of results as plain JSON values, the same way for every dataclass of numbers."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from persona_probe.models.site import Site
from persona_probe.statistics import Estimate


def json_form(value: Any) -> Any:
    """A plain value: sites become layers, NaN null, dataclasses and mappings dicts.

    A field called `site` is written as `layer`, the word that files and tables use.
    """
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, Site):
        return value.layer
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): json_form(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_form(of) for of in value]
    if is_dataclass(value):
        named = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {"layer" if n == "site" else n: json_form(of) for n, of in named}
    return value


def _key(key: Any) -> Any:
    return key.layer if isinstance(key, Site) else key
