"""What every request passes: the token, the origin, limits of time, and the log of statuses."""

import asyncio
import base64
import hmac
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from sepcli.serving.metrics import Metrics
from sepcli.serving.settings import RequestError

OPEN = ("/", "/health")  # without a token, and all below PAGE
PAGE = "/page/"
BEARER = "bearer."  # before the token, base64url, among a WebSocket's subprotocols
PROTOCOL = "sepcli"
SLOWEST_READER_S = 60.0  # for a piece of an answer to be taken
HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:;"
    b" frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, token: str | None, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        send = self._watched(send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            check_origin(headers)
            self._check_token(scope, headers)
        except RequestError as error:
            if scope["type"] == "http":
                await refusal(error)(scope, receive, send)
            else:
                await refuse_stream(WebSocket(scope, receive, send), error)
            return
        with suppress(TimeoutError):  # the client takes nothing; its connection is closed
            await self.app(scope, receive, send)

    def _check_token(self, scope, headers):
        path = scope["path"]
        if self._token is None or path in OPEN or path.startswith(PAGE):
            return
        given = bearer(headers) if scope["type"] == "http" else None
        if scope["type"] == "websocket":
            given = bearer(headers) or subprotocol_token(scope.get("subprotocols", ()))
        if given is None or not hmac.compare_digest(given, self._token):
            raise RequestError(401, "the token is missing or wrong; send Authorization: Bearer")

    def _watched(self, send):
        async def watched(message):
            if message["type"] == "http.response.start":
                self.metrics.requests[message["status"]] += 1
                there = {name.lower() for name, _ in message["headers"]}
                missing = [pair for pair in HEADERS.items() if pair[0] not in there]
                message = message | {"headers": [*message["headers"], *missing]}
            await asyncio.wait_for(send(message), SLOWEST_READER_S)

        return watched


def check_origin(headers: dict[bytes, bytes]) -> None:
    """Refuse what a page of another site sends, as a browser says."""
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    if origin is not None and urlsplit(origin).netloc != host:
        raise RequestError(403, "requests of other sites' pages are refused")


def bearer(headers: dict[bytes, bytes]) -> bytes | None:
    """The token in the header Authorization."""
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if kind.lower() == b"bearer" and token else None


def subprotocol_token(protocols: Any) -> bytes | None:
    """The token in the subprotocols of a WebSocket, where browsers can put one."""
    for each in protocols:
        if each.startswith(BEARER):
            text = each.removeprefix(BEARER)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except ValueError:
                return None
    return None


async def refuse_stream(socket: WebSocket, error: RequestError) -> None:
    """Answer a WebSocket that was not accepted with the status and the JSON of an error."""
    with suppress(WebSocketDisconnect):  # as the connection ends here
        await socket.send_denial_response(refusal(error))


def refusal(error: RequestError) -> JSONResponse:
    """The JSON that says why a request is refused."""
    return JSONResponse({"error": str(error)}, error.status, headers=error.headers)
