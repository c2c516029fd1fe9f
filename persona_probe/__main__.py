"""`python -m persona_probe` is `persona-probe`."""

from persona_probe.cli import main

main()
