"""Only the page that this server sent may talk to it.

A server on loopback can be reached by every web page that its user has open. Three things keep
them out: the Host header must name this machine, so that a foreign name that resolves to it (DNS
rebinding) is refused; an Origin header must be that of the server's own page, and whatever changes
or computes anything (POST) must have one; and what the browser says about cross-site requests is
believed. The answers may not be framed, sniffed, cached, or read by other sites, and the page may
load nothing from elsewhere.
"""

from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class OwnPageOnly:
    """ASGI middleware that refuses strangers and hardens every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = _refusal(scope["type"], scope.get("method", ""), Headers(scope=scope))
        app: Any = self._app if reason is None else JSONResponse({"error": reason}, 403)
        await app(scope, receive, hardened)


def _refusal(kind: str, method: str, headers: Headers) -> str | None:
    """Why a request is not ours; `None` if it is."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if kind != "http":
        return "only plain requests are answered here"
    if _hostname(host) not in LOOPBACK:
        return f"this page answers at localhost only, not as {host!r:.80}"
    if origin is None and method == "POST":
        return "a request without an origin changes nothing here; use the page"
    if origin is not None and origin != f"http://{host}":
        return f"another origin ({origin:.80}) may not use this page"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
        headers.get("sec-fetch-mode") != "navigate"
    ):
        return "another site may not use this page"
    return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
