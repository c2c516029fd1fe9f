"""Options for a safety suite of one's own, and the pack with that suite in it."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from persona_probe.personas.pack import Pack

SuiteSource = Annotated[
    str | None,
    typer.Option(
        "--suite",
        help="Ask your own requests instead of the pack's: a .jsonl or .csv file with a category "
        "column, or hf:OWNER/NAME[:CONFIG][@SPLIT].",
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="Column of --suite with the request.")]
CategoryColumn = Annotated[str | None, typer.Option(help="Column of --suite with the category.")]


def with_suite(pack: "Pack", source: str | None, text: str | None, category: str | None) -> "Pack":
    """The pack as it is, or with all of an imported suite to evaluate on."""
    if source is None:
        return pack
    from persona_probe.personas.suite_file import load_suite

    return pack.with_suite(load_suite(source, text, category), split=False)
