"""An OpenAI-compatible chat-completions endpoint: asked several times, several requests at once."""

import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from persona_probe.errors import PersonaProbeError, RequestError

KEY = "PERSONA_PROBE_ENDPOINT_KEY"  # environment variable with the endpoint's key, if it wants one
RETRIED = (408, 409, 425, 429)
SHOWN = 80
Messages = Sequence[Mapping[str, str]]


class _Failed(Exception):
    """One attempt failed; `again` says whether another may succeed, `wait` how long to wait."""

    def __init__(self, reason: str, again: bool = True, wait: float | None = None) -> None:
        super().__init__(reason)
        self.again, self.wait = again, wait


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address.

    Attributes:
        url: of the API, up to and without "/chat/completions".
        model: the name that the endpoint knows the model by.
        attempts: per request; time-outs, broken connections and overload are tried again.
        timeout: seconds until an attempt is given up.
        concurrency: requests under way at the same time.
        pause: seconds before the second attempt; doubled before each further one, with jitter.
        transport: of the HTTP client; the network if not given.
        sleep: waits; for tests.
    """

    url: str
    model: str
    attempts: int = 5
    timeout: float = 120.0
    concurrency: int = 8
    pause: float = 1.0
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep

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
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with (
            httpx.Client(timeout=self.timeout, transport=self.transport, headers=headers) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            return list(pool.map(lambda r: self._insist(client, r, settings), requests))

    def _insist(self, client: httpx.Client, messages: Messages, settings: dict[str, Any]) -> str:
        jitter = random.Random(str(messages))
        reason = ""
        for attempt in range(self.attempts):
            try:
                return self._ask(client, messages, settings)
            except _Failed as failure:
                reason = str(failure)
                if not failure.again:
                    break
                if attempt + 1 < self.attempts:
                    pause = self.pause * 2**attempt * (0.5 + jitter.random())
                    self.sleep(pause if failure.wait is None else failure.wait)
        raise PersonaProbeError(
            f"the endpoint {self.url} failed: {reason}; what is finished is kept, run the same "
            "command again when it answers"
        )

    def _ask(self, client: httpx.Client, messages: Messages, settings: dict[str, Any]) -> str:
        body = {"model": self.model, "messages": [dict(m) for m in messages], **settings}
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
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise _Failed(f"not a chat completion: {response.text[:SHOWN]!r}") from None
        if not isinstance(content, str):
            raise _Failed("the answer holds no text")
        return content


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the endpoint asks for, at most a minute."""
    try:
        return min(float(response.headers["Retry-After"]), 60.0)
    except (KeyError, ValueError):
        return None
