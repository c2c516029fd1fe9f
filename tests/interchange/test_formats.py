"""What every format owes its users, present and future ones."""

import pytest

from persona_probe.errors import RequestError
from tests.interchange.writing import READ_ONLY, WRITABLE


@pytest.mark.parametrize("name", [*WRITABLE, *READ_ONLY])
def test_a_format_says_what_its_layers_mean_and_what_is_lost(name: str) -> None:
    from persona_probe.interchange import FORMATS
    from persona_probe.interchange.format import Format

    form = FORMATS[name]
    assert isinstance(form, Format)
    assert form.name == name
    assert form.convention.endswith(".")
    documented = type(form).__doc__ or ""
    assert "Survive: unit" in documented
    assert "Lost: " in documented


def test_every_format_is_tested() -> None:
    from persona_probe.interchange import FORMATS

    assert set(FORMATS) == {*WRITABLE, *READ_ONLY}


def test_the_help_names_every_format() -> None:
    from persona_probe.cli.export import FORMATS_HELP as WRITTEN
    from persona_probe.cli.import_ import FORMATS_HELP as READ

    assert all(name in WRITTEN for name in WRITABLE)
    assert not any(name in WRITTEN for name in READ_ONLY)
    assert all(name in READ for name in (*WRITABLE, *READ_ONLY))


def test_an_unknown_format_lists_the_choices() -> None:
    from persona_probe.interchange import format_named

    with pytest.raises(RequestError, match="no format 'csv'; choose one of gguf, persona_vectors"):
        format_named("csv")
