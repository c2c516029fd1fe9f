"""Operations as they are written on the command line."""

import math
from pathlib import Path
from typing import Any

import pytest

from persona_probe.errors import RequestError
from persona_probe.steering import (
    OPERATIONS,
    Ablate,
    Add,
    Clamp,
    Operation,
    Rotate,
    Subspace,
    interventions_along,
    operation_named,
)


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("add", Add(0.4)),
        ("add:gap", Add(0.4, "gap")),
        ("ablate", Ablate()),
        ("ablate:-1.5", Ablate(-1.5)),
        ("clamp", Clamp()),
        ("clamp:0.2", Clamp(0.2)),
        ("clamp:0.2:inf", Clamp(0.2, math.inf)),
        ("clamp:-inf:.5:gap", Clamp(high=0.5, units="gap")),
        ("rotate", Rotate(0.4)),
        ("rotate:share", Rotate(0.4, "share")),
    ],
)
def test_an_operation_is_read_with_its_options(text: str, operation: Operation) -> None:
    assert operation_named(text, 0.4) == operation


def test_a_subspace_is_read_with_its_scale() -> None:
    for text, scale in [("subspace", 0.0), ("subspace:0.5", 0.5)]:
        found = operation_named(text)
        assert isinstance(found, Subspace)
        assert (found.scale, found.others, found.offset) == (scale, (), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subtract", f"no operation 'subtract'; choose one of {', '.join(OPERATIONS)}"),
        ("add:metres", "units must be one of norm, gap, raw, got 'metres'"),
        ("add:gap:raw", "too many options; write add:UNITS"),
        ("clamp:low", "low must be a number, got 'low'"),
        ("clamp:1:0", "low 1.0 and high 0.0"),
        ("clamp:nan:1", "low nan"),
        ("ablate:inf", "finite"),
        ("rotate:0.1", "units must be one of degrees, share"),
        ("subspace:nan", "finite"),
        ("patch:tuned", "no option can name"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        operation_named(text)
    assert "\n" not in str(caught.value)


def test_several_directions_are_acted_on_in_turn_or_as_one_span(make_direction: Any) -> None:
    directions = [make_direction(seed=seed) for seed in (1, 2)]
    first, second = interventions_along(directions, Ablate(), "both")
    assert [first.direction, second.direction] == directions
    (span,) = interventions_along(directions, Subspace(scale=0.5), "both")
    assert span.direction is directions[0]
    assert isinstance(span.operation, Subspace)
    assert span.operation.others == (directions[1],)
    assert span.operation.scale == 0.5


def test_steer_takes_every_operation(
    tiny_llama_folder: Path, make_direction: Any, tmp_path: Path
) -> None:
    import json

    from typer.testing import CliRunner

    from persona_probe.cli.app import app
    from persona_probe.directions.direction_set import save_directions

    known = {
        name: {d.site: d for d in (make_direction(layer, seed + layer) for layer in (0, 1))}
        for name, seed in (("care", 30), ("duty", 40))
    }
    save_directions(known, tmp_path)

    def call(*options: str) -> Any:
        fixed = ["--directions", str(tmp_path), "--persona", "care", "--layer", "1"]
        command = ["steer", str(tiny_llama_folder), "Tell the truth.", *fixed, "--json"]
        return CliRunner().invoke(app, [*command, "--max-new-tokens", "6", *options])

    everywhere = ["--schedule", "both", "--sites", "all"]
    for options, changes in [
        (["--strength", "2", "--operation", "add:gap", "--schedule", "both/linear:40"], True),
        (["--operation", "clamp:2:inf", *everywhere], True),
        (["--operation", "subspace", "--persona", "duty", *everywhere[:2]], True),
        (["--strength", "3", "--condition", "duty:0:inf:prompt_mean:raw"], False),
    ]:
        done = call(*options)
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["steered"] != found["unsteered"]) == changes, options
    wrong = call("--operation", "ablate", "--schedule", "linear:3")
    assert isinstance(wrong.exception, (RequestError, SystemExit))
    assert "no strength to weaken" in f"{wrong.exception} {wrong.stderr}"
