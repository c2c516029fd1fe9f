"""Dated questions, and the modules that their commands run."""
