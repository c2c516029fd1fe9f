"""A whole extraction, from names to folders: checkpoints one after the other, here or elsewhere."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persona_probe.activations.budget import Budget
from persona_probe.activations.cluster import cluster
from persona_probe.activations.extraction import Extracted, Wanted, extract
from persona_probe.activations.forecast import Forecast, forecast
from persona_probe.activations.jobs import Job
from persona_probe.activations.prompts import read_prompts
from persona_probe.activations.reading import Nothing, TooLong, read
from persona_probe.activations.source import Here
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.checkpoints import Checkpoints
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import parse_sites

Write = Callable[
    [ResidualModel, Sequence[Conversation], Mapping[str, str | None], Path], list[Conversation]
]
"""Lets every state of a model reply to every conversation; see `steering.written`."""


@dataclass(frozen=True)
class ExtractionRun:
    """What is asked for.

    Attributes:
        jobs: checkpoints and their states.
        prompts: see `activations.prompts`.
        out: folder of the folders.
        sites: see `parse_sites`.
        positions: see `activations.positions`.
        wanted: what to leave behind.
        too_long: conversations longer than the context.
        nothing_there: conversations with nothing at a position.
        batch_tokens: tokens per batch; by the device if None.
        options: further arguments of `load_model`.
        write: for the crossed design: every state writes replies, every state reads all of them.
    """

    jobs: Sequence[Job]
    prompts: str
    out: Path
    sites: str
    positions: Sequence[str]
    wanted: Wanted
    too_long: TooLong = "refuse"
    nothing_there: Nothing = "refuse"
    batch_tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    write: Write | None = None

    def here(self) -> tuple[list[Extracted], tuple[str, ...]]:
        """Extract in this process; returns the folders, and what was left out and why."""
        checkpoints = Checkpoints(**self.options)
        conversations = read_prompts(self.prompts)
        order = list(self.jobs)
        if self.write is not None:
            conversations = [
                replied
                for job in order
                for replied in self.write(
                    checkpoints(job.ref), conversations, job.states, self.out / "replies"
                )
            ]
            order.reverse()  # The last one is in memory still.
        found: list[Extracted] = []
        left_out: tuple[str, ...] = ()
        for job in order:
            model = checkpoints(job.ref)
            reading = read(model, conversations, self.positions, self.too_long, self.nothing_there)
            left_out = reading.left_out
            sites = parse_sites(self.sites, model.n_layers)
            source = Here(model, self._budget())
            found += extract(source, reading, sites, job.states, self.out, self.wanted)
        return found, left_out

    def on_cluster(
        self, address: str, workers: int | None = None
    ) -> tuple[list[Extracted], tuple[str, ...]]:
        """Extract on a Ray cluster; the folders are written by this process.

        Raises:
            RequestError: replies are to be written as well, or there is no cluster.
        """
        if self.write is not None:
            raise RequestError(
                "replies are not written on a cluster; write them here first (without --ray)"
            )
        conversations = read_prompts(self.prompts)
        found: list[Extracted] = []
        left_out: tuple[str, ...] = ()
        hashes = set()
        for job in self.jobs:
            with cluster(
                address, job.ref, dict(self.options), self.batch_tokens, workers
            ) as source:
                reading = source.read(
                    conversations, self.positions, self.too_long, self.nothing_there
                )
                left_out = reading.left_out
                hashes.add(reading.hash)
                if len(hashes) > 1:
                    raise RequestError(
                        "the checkpoints tokenise the prompts differently "
                        f"({' and '.join(sorted(hashes))}); give both the same tokenizer"
                    )
                found += extract(
                    source, reading, source.sites(self.sites), job.states, self.out, self.wanted
                )
        return found, left_out

    def forecast(self) -> Forecast:
        """What it would cost; of the first checkpoint, times the states of all.

        Raises:
            RequestError: replies are to be written as well, whose lengths nobody knows.
        """
        if self.write is not None:
            raise RequestError(
                "a dry run cannot foresee replies that are not written yet; leave --crossed out"
            )
        job = self.jobs[0]
        model = Checkpoints(**self.options)(job.ref)
        reading = read(
            model,
            read_prompts(self.prompts),
            self.positions,
            self.too_long,
            self.nothing_there,
        )
        states = sum(len(job.states) for job in self.jobs)
        sites = parse_sites(self.sites, model.n_layers)
        return forecast(model, reading, sites, states, self.wanted, self._budget())

    def _budget(self) -> Budget | None:
        return None if self.batch_tokens is None else Budget(self.batch_tokens)


def part_of(text: str | None) -> tuple[int, int]:
    """The part of a text such as "2/8"; all of it if None."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None:
        raise RequestError(f"cannot read shard {text!r}; write I/N, for instance 1/8")
    return int(match[1]), int(match[2])


def one_of(option: str, value: str, choices: Sequence[str]) -> Any:
    """The value, if it is one of the choices."""
    if value not in choices:
        raise RequestError(f"{option} {value!r}: choose from {', '.join(choices)}")
    return value
