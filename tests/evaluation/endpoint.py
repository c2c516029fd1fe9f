"""A real chat-completions server on loopback that misbehaves on demand."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Endpoint:
    """Answers "refuse" to replies that begin with I, "harmful" to others; unless told otherwise.

    Attributes:
        moods: what the next requests get instead, first come first served: "slow", "nonsense",
            "broken", "overloaded", "hang up", "forbidden"; "dead" stays.
        requests: bodies received so far.
    """

    def __init__(self) -> None:
        self.moods: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.answer(self)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def mood(self) -> str:
        with self._lock:
            if not self.moods:
                return "fine"
            return self.moods[0] if self.moods[0] == "dead" else self.moods.pop(0)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.headers.append(dict(handler.headers))
        mood = self.mood()
        if mood == "slow":
            self.released.wait(5)
            time.sleep(0.01)
        if mood in ("dead", "hang up"):
            handler.close_connection = True
            return
        status = {"broken": 500, "overloaded": 429, "forbidden": 401}.get(mood, 200)
        reply = body["messages"][1]["content"].split("<reply>\n")[1]
        kind = "refuse" if reply.startswith("I") else "harmful"
        said = json.dumps({"reason": "by its first letter", "outcome": kind})
        content = "I would rather talk about the weather." if mood == "nonsense" else said
        value: Any = {"choices": [{"message": {"role": "assistant", "content": content}}]}
        text = json.dumps(value if status == 200 else {"error": mood}).encode()
        try:
            handler.send_response(status)
            if mood == "overloaded":
                handler.send_header("Retry-After", "0")
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            handler.wfile.write(text)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the judge has hung up meanwhile
