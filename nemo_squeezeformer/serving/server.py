"""The server: it runs the page until a signal ends the command."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable

from aiohttp import web

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import signals

PATIENCE = 1.0  # seconds that open requests have after a signal


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address of this machine. Browsers that connect to it wait for ``serve``.

    Args:
        host: an address or a name of this machine.
        port: the port; 0 for any free port.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: the name has a wrong form, for example "a..b"
        reason = (getattr(error, "strerror", "") or str(error)).lower()
        remedy = "give a --host of this machine"
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            remedy = "choose another port, or 0 for any free port"
        raise UserError(f"--host {host} --port {port}: the address cannot be used ({reason}); {remedy}") from None


def address_of(bound: socket.socket) -> str:
    """Return the address of a page that ``bound`` serves."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(bound: socket.socket) -> bool:
    """Return True if only programs on this machine reach the socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def serve(app: web.Application, bound: socket.socket, opened: Callable[[], None]) -> None:
    """Serve an application until Ctrl-C or SIGTERM, and close all connections.

    Args:
        app: the application.
        bound: the socket of the server.
        opened: is called when the application answers.

    Raises:
        KeyboardInterrupt: a signal has arrived.
    """
    signals.current.put_off()
    try:
        asyncio.run(_serve(app, bound, opened))
    finally:
        signals.current.stop_putting_off()


async def _serve(app: web.Application, bound: socket.socket, opened: Callable[[], None]) -> None:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=PATIENCE, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        opened()
        while not signals.current.due:
            await asyncio.sleep(0.1)
    finally:
        await runner.cleanup()
