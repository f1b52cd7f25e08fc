"""The process that listens: uvicorn with one application, and limits of its own."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sepcli.errors import SepcliError
from sepcli.serving.app import Server, make_app
from sepcli.serving.settings import FIRST_REQUEST_S, GRACE_S, Settings

MOST_CONNECTIONS = 2000
LARGEST_MESSAGE = 4_000_000  # bytes, of a WebSocket's


class Impatient(H11Protocol):
    """A connection that is closed when nothing has been asked for after `FIRST_REQUEST_S`."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(FIRST_REQUEST_S, self._close_if_idle)

    def _close_if_idle(self):
        if self.cycle is None and self.transport.get_protocol() is self:
            self.transport.close()


class Announced(uvicorn.Server):
    """Calls `tell` with the port once it listens, and lets a `Server` know of the end."""

    def __init__(self, config: uvicorn.Config, server: Server, tell: Callable[[int], None]) -> None:
        super().__init__(config)
        self._server, self._tell = server, tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit and sockets:
            self._tell(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.end_events()
        await super().shutdown(sockets)
        await self._server.close()


def serve(settings: Settings, host: str, port: int, tell: Callable[[int], None]) -> None:
    """Listen on `host` and `port` (0: any that is free) until a signal ends it.

    tell: gets the port, once the models are loaded. Raises SepcliError when the address is taken,
    the folder another server's, or a model missing.
    """
    with listening(host, port) as listener:
        asyncio.run(run(Server(settings), listener, tell))


async def run(server: Server, listener: socket.socket, tell: Callable[[int], None]) -> None:
    """Serve until a signal ends it."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        make_app(server),
        http=Impatient,
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(GRACE_S),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    await server.start()
    await Announced(config, server, tell).serve([listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; SepcliError where that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SepcliError(
            f"{host}:{port}: {error.strerror}; choose another --host or --port"
        ) from None
    return listener
