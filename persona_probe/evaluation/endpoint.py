"""An OpenAI-compatible chat-completions endpoint: asked several times, several requests at once."""

import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from persona_probe.errors import PersonaProbeError, RequestError

KEY = "PERSONA_PROBE_ENDPOINT_KEY"  # environment variable with the endpoint's key, if it wants one
RETRIED = (408, 409, 425, 429)
SHOWN = 80
Messages = Sequence[Mapping[str, str]]
T = TypeVar("T")


class UnusableAnswerError(Exception):
    """The endpoint did answer, but not with what was asked for; another attempt may do better."""


class _Failed(Exception):
    """One attempt got no answer; `again` says whether another may, `wait` how long to wait."""

    def __init__(self, reason: str, again: bool = True, wait: float | None = None) -> None:
        super().__init__(reason)
        self.again, self.wait = again, wait


@dataclass(frozen=True)
class Failure:
    """Why a request came to nothing.

    Attributes:
        reason: of the last attempt.
        dead: it was given up early, as the endpoint had stopped answering.
    """

    reason: str
    dead: bool = False


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address.

    Time-outs, broken connections, overload and unusable answers are tried again with growing
    pauses. When `give_up_after` requests in a row have failed for want of any answer, the endpoint
    counts as dead: what is left fails at once, rather than each waiting for all its attempts.

    Attributes:
        url: of the API, up to and without "/chat/completions".
        model: the name that the endpoint knows the model by.
        attempts: per request.
        timeout: seconds until an attempt is given up.
        concurrency: requests under way at the same time.
        pause: seconds before the second attempt; doubled before each further one, with jitter.
        give_up_after: failures in a row.
        key: environment variable with the endpoint's key, if it wants one.
        transport: of the HTTP client; the network if not given.
        sleep: waits; for tests.
    """

    url: str
    model: str
    attempts: int = 4
    timeout: float = 120.0
    concurrency: int = 8
    pause: float = 1.0
    give_up_after: int = 8
    key: str = KEY
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    _health: "_Health" = field(
        default_factory=lambda: _Health(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s]+", self.url):
            raise RequestError(f"{self.url!r} is no URL of an endpoint; it begins with http(s)://")

    def complete(self, requests: Sequence[Messages], **settings: Any) -> list[str]:
        """The reply to each conversation, in order.

        Args:
            requests: messages with role and content.
            settings: further fields of each request, such as temperature or max_tokens.

        Raises:
            PersonaProbeError: a request failed at every attempt; the message says why.
        """
        replies = []
        for reply in self.ask(requests, str, **settings):
            if isinstance(reply, Failure):
                raise PersonaProbeError(
                    f"the endpoint {self.url} failed: {reply.reason}; what is finished is kept, "
                    "run the same command again when it answers"
                )
            replies.append(reply)
        return replies

    def ask(
        self, requests: Sequence[Messages], read: Callable[[str], T], **settings: Any
    ) -> list[T | Failure]:
        """What is read from each reply, or why there is nothing to read, in order.

        Args:
            requests: messages with role and content.
            read: makes something of a reply, or raises `UnusableAnswerError` to have another one.
            settings: further fields of each request, such as temperature or max_tokens.
        """
        key = os.environ.get(self.key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with (
            httpx.Client(timeout=self.timeout, transport=self.transport, headers=headers) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            bodies = [
                {"model": self.model, "messages": [dict(m) for m in messages], **settings}
                for messages in requests
            ]
            return list(pool.map(lambda body: self._insist(client, body, read), bodies))

    def _insist(
        self, client: httpx.Client, body: dict[str, Any], read: Callable[[str], T]
    ) -> T | Failure:
        jitter = random.Random(str(body["messages"]))
        reason, answered = "", False
        for attempt in range(self.attempts):
            if self._health.dead(self.give_up_after):
                return Failure(reason or self._health.reason, dead=True)
            again, wait = True, None
            try:
                response = self._post(client, body)
                self._health.answered()
                return read(_content(response))
            except UnusableAnswerError as error:
                reason, answered = str(error), True
            except _Failed as failure:
                reason, answered = str(failure), False
                again, wait = failure.again, failure.wait
            if not again:
                break
            if attempt + 1 < self.attempts:
                pause = self.pause * 2**attempt * (0.5 + jitter.random())
                self.sleep(pause if wait is None else wait)
        if not answered:
            self._health.failed(reason)
        return Failure(reason)

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
        try:
            response = client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
        except httpx.TimeoutException:
            raise _Failed(f"no answer within {self.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise _Failed(f"{type(error).__name__}: {error}") from None
        if response.status_code != httpx.codes.OK:
            again = response.status_code in RETRIED or response.status_code >= 500
            said = f"status {response.status_code}: {response.text[:SHOWN]!r}"
            raise _Failed(said, again, _retry_after(response))
        return response


class _Health:
    """How many requests in a row got no answer; shared by the threads of an endpoint."""

    def __init__(self) -> None:
        self.reason = ""
        self._failures = 0
        self._lock = threading.Lock()

    def dead(self, after: int) -> bool:
        return self._failures >= after

    def failed(self, reason: str) -> None:
        with self._lock:
            self._failures += 1
            self.reason = reason

    def answered(self) -> None:
        with self._lock:
            self._failures = 0


def _content(response: httpx.Response) -> str:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        said = f"not a chat completion: {response.text[:SHOWN]!r}"
        raise UnusableAnswerError(said) from None
    if not isinstance(content, str):
        raise UnusableAnswerError("the answer holds no text")
    return content


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the endpoint asks for, at most a minute."""
    try:
        return min(float(response.headers["Retry-After"]), 60.0)
    except (KeyError, ValueError):
        return None
