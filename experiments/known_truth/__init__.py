"""Organisms whose truth is known because it was built in, to calibrate the verdict ladder.

Each is an ordinary model folder with ordinary adapters, and a study reads it as it reads any other.
"""
