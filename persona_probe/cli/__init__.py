"""The command line: parse, call the library, save, say one line.

Results go to standard output (`--json` makes them one machine-readable object), progress and
prose to standard error. Exit codes: 0 done, 1 the work failed, 2 the request was wrong.
"""


def main() -> None:
    """Entry point of `persona-probe`."""
    from persona_probe.cli.app import app
    from persona_probe.cli.say import note
    from persona_probe.errors import PersonaProbeError

    try:
        app()
    except PersonaProbeError as error:
        note(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        note("interrupted; long jobs go on where they were when the same command is run again")
        raise SystemExit(1) from None
