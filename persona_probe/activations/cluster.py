"""The models of a Ray cluster as a source of activations: one actor per accelerator.

Shards are the unit of work. They are handed out as actors become free and come back in order, so
that what is written is what one process would have written. Ray is an extra: `pip install
'persona-probe[ray]'`.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from persona_probe.activations.budget import Budget
from persona_probe.activations.reading import Nothing, Reading, TooLong, read
from persona_probe.activations.source import Here, Values
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site, parse_sites
from persona_probe.provenance import Provenance

LOCAL = "local"
IN_FLIGHT = 2
"""Shards per actor that are under way or wait to be written: bounds the driver's memory."""


class Worker:
    """One model on one machine; lives in an actor."""

    def __init__(self, ref: ModelRef, options: dict[str, Any], batch_tokens: int | None) -> None:
        self.model = load_model(ref, **options)
        budget = None if batch_tokens is None else Budget(batch_tokens)
        self.source = Here(self.model, budget)

    def about(self) -> tuple[int, int, str]:
        """d_model, number of blocks, dtype."""
        return self.model.d_model, self.model.n_layers, self.source.dtype

    def read(
        self,
        conversations: Sequence[Conversation],
        positions: Sequence[str],
        too_long: TooLong,
        nothing_there: Nothing,
    ) -> Reading:
        """Tokenise where the tokenizer is."""
        return read(self.model, conversations, positions, too_long, nothing_there)

    def describe(self, adapter: str | None, fields: dict[str, Any]) -> Provenance:
        return self.source.describe(adapter, **fields)

    def values(
        self, adapter: str | None, reading: Reading, shard: range, sites: Sequence[Site]
    ) -> Values:
        """The rows of one shard."""
        return next(self.source.values(adapter, reading, [shard], sites, lambda _tokens: None))


class Cluster:
    """A source whose forward passes run on a cluster's actors."""

    def __init__(self, ray: Any, actors: Sequence[Any]) -> None:
        self._ray = ray
        self._actors = list(actors)
        self._placed: tuple[int, Any] | None = None
        self._d_model, self._n_layers, self._dtype = self._ask(actors[0].about.remote())

    @property
    def d_model(self) -> int:
        return int(self._d_model)

    @property
    def dtype(self) -> str:
        return str(self._dtype)

    def sites(self, text: str) -> tuple[Site, ...]:
        """Sites as the command line writes them; see `parse_sites`."""
        return parse_sites(text, int(self._n_layers))

    def read(
        self,
        conversations: Sequence[Conversation],
        positions: Sequence[str],
        too_long: TooLong = "refuse",
        nothing_there: Nothing = "refuse",
    ) -> Reading:
        """As `activations.reading.read`, by the first actor's tokenizer."""
        found: Reading = self._ask(
            self._actors[0].read.remote(conversations, positions, too_long, nothing_there)
        )
        return found

    def describe(self, adapter: str | None, **fields: Any) -> Provenance:
        found: Provenance = self._ask(self._actors[0].describe.remote(adapter, fields))
        return found

    def values(
        self,
        adapter: str | None,
        reading: Reading,
        shards: Sequence[range],
        sites: Sequence[Site],
        advance: Callable[[int], None],
    ) -> Iterator[Values]:
        if self._placed is None or self._placed[0] != id(reading):
            self._placed = id(reading), self._ray.put(reading)
        placed, todo = self._placed[1], deque(shards)
        under_way: deque[tuple[range, Any]] = deque()
        busy: dict[Any, int] = dict.fromkeys(range(len(self._actors)), 0)
        owner: dict[Any, int] = {}
        while todo or under_way:
            while todo and len(under_way) < IN_FLIGHT * len(self._actors):
                free = min(busy, key=lambda n: busy[n])
                shard = todo.popleft()
                result = self._actors[free].values.remote(adapter, placed, shard, sites)
                busy[free] += 1
                owner[result] = free
                under_way.append((shard, result))
            shard, result = under_way.popleft()
            values: Values = self._ask(result)
            busy[owner.pop(result)] -= 1
            advance(sum(reading.lengths[i] for i in shard))
            yield values

    def _ask(self, result: Any) -> Any:
        """The actor's answer; what it raised of ours is raised here, without Ray's wrapping."""
        try:
            return self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause or error from None


@contextmanager
def cluster(
    address: str,
    ref: ModelRef,
    options: dict[str, Any],
    batch_tokens: int | None = None,
    workers: int | None = None,
) -> Iterator[Cluster]:
    """Start one worker per accelerator of a cluster (per two cores where there is none).

    Args:
        address: of the cluster's head, or "local" for one on this machine.
        ref: the model, by a name or folder that every machine can reach.
        options: further arguments of `load_model`.
        batch_tokens: tokens per batch of every worker; by its device if not given.
        workers: how many, if not one per accelerator.

    Raises:
        RequestError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise RequestError("Ray is not installed; run: pip install 'persona-probe[ray]'") from error
    try:
        ray.init(
            address=None if address == LOCAL else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).strip().split("\n")[0]
        raise RequestError(
            f"no Ray cluster at {address!r} ({said}); start one, or use 'local'"
        ) from error
    try:
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        count = workers or gpus or max(1, cores // 2)
        actor = ray.remote(num_gpus=1 if gpus else 0, num_cpus=0 if gpus else 1)(Worker)
        yield Cluster(ray, [actor.remote(ref, options, batch_tokens) for _ in range(count)])
    finally:
        ray.shutdown()
