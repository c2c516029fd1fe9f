"""The page and its four requests, on loopback.

GET  /         the page; its style and script beside it
GET  /about    what there is to play with
POST /reply    both replies, one JSON object per line, as the tokens are made
POST /profile  the persona profile of a setting
POST /save     keep a setting
"""

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.playground.own_page import OwnPageOnly
from persona_probe.playground.saving import save_setting
from persona_probe.playground.session import Session
from persona_probe.playground.setting import Question, Setting
from persona_probe.playground.turns import Turns

PAGE = Path(__file__).parent / "page"
LONGEST_REQUEST = 64 * 1024  # bytes; prompts are text
HOST = "127.0.0.1"


def application(session: Session, out: Path) -> Starlette:
    """The page and its requests; `out` is the folder for what is saved."""
    turns = Turns()

    async def about(_request: Request) -> Response:
        return JSONResponse(session.about())

    async def reply(request: Request) -> Response:
        question = Question.from_json(await _json(request))
        pieces = turns.stream(session.reply(question))
        # What is wrong with the request shows at the first token, when the status is still open.
        first = await anext(pieces)
        return StreamingResponse(_lines(first, pieces), media_type="application/x-ndjson")

    async def profile(request: Request) -> Response:
        steps = session.profile_in_steps(Setting.from_json(await _json(request)))
        while (measured := await turns.take(lambda: next(steps))) is None:
            if await request.is_disconnected():
                break
        return JSONResponse(measured)

    async def save(request: Request) -> Response:
        asked = await _json(request)
        setting, name = Setting.from_json(asked), asked.get("name")
        if not isinstance(name, str):
            raise RequestError("the request has no 'name'")
        saved = await turns.take(lambda: save_setting(session, setting, name, out))
        return JSONResponse({key: str(value) for key, value in vars(saved).items()})

    return Starlette(
        routes=[
            Route("/", _file("index.html", "text/html")),
            Route("/page.css", _file("page.css", "text/css")),
            Route("/page.js", _file("page.js", "text/javascript")),
            Route("/icon.svg", _file("icon.svg", "image/svg+xml")),
            Route("/about", about),
            Route("/reply", reply, methods=["POST"]),
            Route("/profile", profile, methods=["POST"]),
            Route("/save", save, methods=["POST"]),
        ],
        middleware=[Middleware(OwnPageOnly)],
        exception_handlers={PersonaProbeError: _refused, HTTPException: _no_such},
    )


def loopback_socket(port: int) -> socket.socket:
    """A socket that only this machine can reach; port 0 takes a free one.

    Raises:
        RequestError: the port is taken or not allowed.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise RequestError(
            f"port {port} cannot be used ({error.strerror}); give another with --port, 0 for any"
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """Where a browser finds the page."""
    return f"http://{HOST}:{listening.getsockname()[1]}"


def server_of(app: Starlette) -> uvicorn.Server:
    """A server for the application; `server_of(app).run(sockets=[…])` runs it until interrupted."""
    # A reply that nobody waits for any longer must not hold up the end.
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, lifespan="off")
    )


async def _lines(
    first: Mapping[str, Any], rest: AsyncIterator[Mapping[str, Any]]
) -> AsyncIterator[str]:
    yield _line(first)
    try:
        async for piece in rest:
            yield _line(piece)
    except PersonaProbeError as error:
        yield _line({"end": "failed", "error": str(error)})


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


async def _json(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        RequestError: it is too long, or something else than a JSON object.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RequestError("requests are JSON: set the content type to application/json")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_REQUEST:
            raise RequestError(f"the request is longer than {LONGEST_REQUEST} bytes")
    try:
        value = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise RequestError(f"the request should be a JSON object, got {type(value).__name__}")
    return value


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    def send(_request: Request) -> Response:
        return FileResponse(PAGE / name, media_type=kind)

    return send


def _refused(_request: Request, error: Exception) -> Response:
    wrong = isinstance(error, RequestError)
    return JSONResponse({"error": str(error)}, 400 if wrong else 500)


def _no_such(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": str(getattr(error, "detail", error))}, status)
