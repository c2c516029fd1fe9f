"""Wiring of the commands; each lives in its own file and imports its room when called."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from persona_probe.cli import study as study_commands
from persona_probe.cli.bake import bake
from persona_probe.cli.chat import chat
from persona_probe.cli.compare import compare
from persona_probe.cli.constitution import audit as audit_samples
from persona_probe.cli.constitution import samples
from persona_probe.cli.constitution import show as show_constitution
from persona_probe.cli.doctor import doctor
from persona_probe.cli.evaluate import evaluate
from persona_probe.cli.export import export
from persona_probe.cli.extract import extract
from persona_probe.cli.find import find
from persona_probe.cli.finetune import constitution as finetune_constitution
from persona_probe.cli.finetune import helpful_only, sft
from persona_probe.cli.flag import flag
from persona_probe.cli.import_ import import_
from persona_probe.cli.judge import judge
from persona_probe.cli.organism import bars, build
from persona_probe.cli.pack import audit
from persona_probe.cli.pack import show as show_pack
from persona_probe.cli.playground import playground
from persona_probe.cli.report import report
from persona_probe.cli.show import show
from persona_probe.cli.steer import steer
from persona_probe.cli.sweep import sweep
from persona_probe.cli.validate import validate

app = typer.Typer(
    name="persona-probe",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: tuple[Callable[..., None], ...] = (
    extract,
    find,
    validate,
    compare,
    show,
    export,
    steer,
    sweep,
    chat,
    playground,
    bake,
    evaluate,
    judge,
    flag,
)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(version("persona-probe"))
        raise typer.Exit
    return wanted


@app.callback()
def program(
    show_version: Annotated[
        bool, typer.Option("--version", help="The version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Find persona directions in a model's residual stream, and test what they cause."""


for command in COMMANDS:
    app.command()(command)
app.command("import")(import_)

constitution = typer.Typer(
    help="Principles to criticise and revise by, and samples written so.", no_args_is_help=True
)
constitution.command("show")(show_constitution)
constitution.command()(samples)
constitution.command("audit")(audit_samples)
app.add_typer(constitution, name="constitution")

finetune = typer.Typer(help="From the model before to the model after.", no_args_is_help=True)
finetune.command("constitution")(finetune_constitution)
finetune.command()(sft)
finetune.command("helpful-only")(helpful_only)
app.add_typer(finetune, name="finetune")

study = typer.Typer(help="The whole question, from models to a verdict.", no_args_is_help=True)
for study_command in (
    study_commands.run,
    study_commands.status,
    study_commands.resume,
    study_commands.show,
):
    study.command()(study_command)
app.add_typer(study, name="study")
app.command()(report)

pack = typer.Typer(help="What a model is asked: count it, audit it.", no_args_is_help=True)
pack.command("show")(show_pack)
pack.command()(audit)
app.add_typer(pack, name="pack")

organism = typer.Typer(help="The embedded model: make it, measure it.", no_args_is_help=True)
organism.command()(build)
organism.command()(bars)
app.add_typer(organism, name="organism")
app.command()(doctor)
