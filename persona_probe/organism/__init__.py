"""The embedded organism: a micro language model that learnt many characters, and its recipe."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped base model, with its adapters in `adapters/`."""
