"""Chat with piped input, and what the screen would show."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from persona_probe.cli.app import app


@pytest.fixture
def directions(make_direction: Any, tmp_path: Path) -> Path:
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.models.site import Site

    found = {"virtue": {Site(1): make_direction(layer=1).centred(0.5)}}
    return save_directions(found, tmp_path / "directions")


def chat(model: Path, directions: Path, typed: str, *more: str) -> Any:
    command = ["chat", str(model), "--directions", str(directions), "--persona", "virtue"]
    command += ["--layer", "1", "--max-new-tokens", "8", "--schedule", "both", *more]
    return CliRunner().invoke(app, command, input=typed)


def test_piped_lines_are_answered_twice_in_plain_text(tiny_folders: Path, directions: Path) -> None:
    done = chat(tiny_folders, directions, "Hello?\n\nTell the truth.\n", "--strength", "3")
    assert done.exit_code == 0, done.output
    lines = done.stdout.strip().split("\n")
    heads = [line[:11].strip() for line in lines if re.match(r"(un)?steered:", line)]
    assert heads == ["unsteered:", "steered:"] * 2
    assert "\x1b" not in done.stdout
    assert re.search(r"\[[+-]\d+\.\d\d gaps\]", done.stdout)


def test_strength_reset_and_quit(tiny_llama_folder: Path, directions: Path) -> None:
    typed = "Hello?\n/strength 0\nHello?\n/reset\nHello?\n/quit\nnever\n"
    done = chat(tiny_llama_folder, directions, typed, "--strength", "8", "--json")
    assert done.exit_code == 0, done.output
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert first["strength"] == 8
    assert first["steered"]["text"] != first["unsteered"]["text"]
    assert first["steered"]["mean_projection"] > first["unsteered"]["mean_projection"]
    assert second["strength"] == third["strength"] == 0
    assert third["steered"] == third["unsteered"] == first["unsteered"]
    # Without the reset the two sides remember other first replies.
    assert second["unsteered"] != first["unsteered"]
    assert second["steered"] != second["unsteered"]
    pieces = first["unsteered"]["tokens"]
    assert "".join(text for text, _ in pieces).strip() == first["unsteered"]["text"]
    assert "strength 0" in done.stderr


@pytest.mark.parametrize(
    ("typed", "more", "said"),
    [
        ("/fly\n", [], "no command '/fly'; /strength X"),
        ("/strength\n", [], "no command '/strength'"),
        ("/strength much\n", [], "/strength 'much': write a number"),
        ("/strength nan\n", [], "must be finite"),
        ("Hello?\n", ["--max-new-tokens", "400"], "tiny-llama reads 256"),
        ("Hello?\n", ["--adapter", "none-such"], "no adapter 'none-such'"),
        ("Hello?\n", ["--layer", "2"], "no direction of 'virtue' at layer 2"),
    ],
)
def test_a_script_that_asks_for_nonsense_stops(
    typed: str, more: list[str], said: str, tiny_llama_folder: Path, directions: Path
) -> None:
    done = chat(tiny_llama_folder, directions, typed, *more)
    assert done.exception is not None
    assert said in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2


def contrast(colour: str, background: str) -> float:
    """Ratio of luminances, WCAG 2.1."""

    def luminance(text: str) -> float:
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted((luminance(colour), luminance(background)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#000000", "#1e1e1e", "#fdf6e3", "#002b36"])
def test_every_colour_can_be_read_on_light_and_dark(background: str) -> None:
    from rich.color import Color, ColorSystem

    from persona_probe.cli.chat_screen import STYLES

    colours = [m[0] for _, style in STYLES if (m := re.search(r"#\w{6}", style))]
    assert len(set(colours)) == 4
    in_256 = [Color.parse(c).downgrade(ColorSystem.EIGHT_BIT).get_truecolor().hex for c in colours]
    assert min(contrast(colour, background) for colour in (*colours, *in_256)) >= 3


def screen(width: int, **options: Any) -> str:
    """What a terminal of some width would get of two replies of known projections."""
    from rich.console import Console

    from persona_probe.cli.chat_screen import Replies, side_by_side
    from persona_probe.steering.scale import Scale
    from persona_probe.steering.stream import Piece

    scale = Scale(centre=1.0, gap=2.0, positive="virtue", negative="neutral")
    replies = Replies.none(scale)
    for row, text, projection in [
        (0, "cold", -1.0),
        (1, "warm", 3.0),
        (0, " middle", 1.0),
        (1, " mild", 1.5),
    ]:
        replies.add(Piece(row, 0, text, projection))
    console = Console(width=width, force_terminal=True, color_system="truecolor", **options)
    with console.capture() as captured:
        console.print(side_by_side(replies, 0.4, console.width))
    return captured.get()


def test_sides_stand_beside_each_other_and_stacked_where_it_is_narrow() -> None:
    strip = re.compile(r"\x1b\[[0-9;]*m")
    wide, narrow = (strip.sub("", screen(width)) for width in (100, 60))
    assert any("cold middle" in line and "warm mild" in line for line in wide.split("\n"))
    rows = [line.strip() for line in narrow.split("\n") if line.strip()]
    assert rows == [
        "unsteered -0.50 gaps",
        "cold middle",
        "steered 0.4 +0.62 gaps",
        "warm mild",
    ]


def test_tokens_have_the_colour_of_their_projection_and_none_where_it_is_unwanted() -> None:
    # In class gaps: cold -1, middle 0, mild +0.25, warm +1.
    coloured = screen(100)
    assert "\x1b[1;38;2;0;135;215mcold\x1b[0m" in coloured
    assert "\x1b[1;38;2;215;95;0mwarm\x1b[0m" in coloured
    assert "\x1b[38;2;175;122;79m mild\x1b[0m" in coloured
    assert re.search(r"\x1b\[0m middle", coloured)
    assert "38;2" not in screen(100, no_color=True)


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;2" not in screen(100)


def test_a_terminal_shows_replies_while_they_grow(tiny_model: Any, make_direction: Any) -> None:
    import io

    from rich.console import Console

    from persona_probe.cli.chat_screen import show
    from persona_probe.steering.dialogue import Dialogue, Manner
    from persona_probe.steering.scale import Scale

    direction = make_direction(layer=1)
    dialogue = Dialogue(tiny_model, direction, 2.0, Manner(max_new_tokens=6))
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    replies = show(dialogue.say("Hello?"), Scale.of(direction), 2.0, console)
    assert replies.text(0)
    assert replies.text(0)[:4].strip() in file.getvalue()
    assert dialogue.history(0)[-1].role == "assistant"


def test_the_legend_names_both_ends(make_direction: Any) -> None:
    from persona_probe.cli.chat_screen import legend
    from persona_probe.steering.scale import Scale

    line = legend(Scale.of(make_direction())).plain
    assert line.index("negative") < line.index("-0.5 to -0.15") < line.index("positive")


def test_help_has_an_example() -> None:
    for command in ("chat", "bake"):
        done = CliRunner().invoke(app, [command, "--help"])
        assert done.exit_code == 0
        assert f"Example: persona-probe {command}" in " ".join(done.output.split())


def test_somebody_who_types_is_told_and_goes_on(
    tiny_llama_folder: Path,
    directions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At a terminal a wrong command is no reason to lose the conversation."""
    import sys

    from persona_probe.cli.chat import chat as command

    typed = iter(["/fly", "Hello?", "/strength x", "Again?"])

    def answer(_prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    command(str(tiny_llama_folder), directions, "virtue", 1, schedule="both", max_new_tokens=4)
    said = capsys.readouterr()
    assert said.out.count("unsteered:") == 2
    assert "error: no command '/fly'" in said.err
    assert "error: /strength 'x': write a number" in said.err
