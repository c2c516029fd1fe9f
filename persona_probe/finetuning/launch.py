"""Which of several processes this is, where `accelerate launch` started several."""

import os


def processes() -> int:
    """How many train together; `accelerate launch` says so."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the one process that writes."""
    return os.environ.get("RANK", "0") == "0"
