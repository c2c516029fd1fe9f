"""A local page to play with directions: sliders, two replies side by side, a moving profile."""

from persona_probe.playground.session import Session
from persona_probe.playground.setting import Question, Setting

__all__ = ["Question", "Session", "Setting"]
