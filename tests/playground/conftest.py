"""A session with the tiny Llama, and its page on a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.playground import Session


@pytest.fixture(scope="session")
def session(tiny_model: Any, small_pack: Path, make_direction: Any) -> "Session":
    """Two personas at two layers, read at the last prompt token. Treat it as read-only."""
    from persona_probe.models.site import Site
    from persona_probe.personas.pack import load_pack
    from persona_probe.playground import Session

    def at(persona: str, layer: int, seed: int) -> Any:
        return replace(make_direction(layer, seed), persona=persona, positive_label=persona)

    directions = {
        "virtue": {Site(n): at("virtue", n, n) for n in (0, 1)},
        "service": {Site(1): at("service", 1, 7)},
    }
    return Session(tiny_model, directions, load_pack(small_pack), "tuned", 12)


@contextmanager
def served(session: "Session", out: Path) -> Iterator[str]:
    """The page of a session on a free port of loopback, for as long as the block runs."""
    from persona_probe.playground.server import (
        address_of,
        application,
        loopback_socket,
        server_of,
    )

    listening = loopback_socket(0)
    server = server_of(application(session, out))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()


@pytest.fixture(scope="session")
def serving() -> "Callable[[Session, Path], AbstractContextManager[str]]":
    """Serve a session's page: `with serving(session, folder) as address`."""
    return served


@pytest.fixture(scope="session")
def address(session: "Session", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the tiny model's page answers."""
    with served(session, tmp_path_factory.mktemp("served")) as where:
        yield where
