"""The names under which browsers may open the page.

A page of another site can point its own name to the address of this server (DNS rebinding). The browser then sends the
requests of the other site to this server, and the origin of these requests fits the header ``Host``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any

from aiohttp import web

HOST = re.compile(r"(?:\[([^][@/\s]+)\]|([^][:@/\s]+))(?::\d*)?")  # an IPv6 address, or another address or name


def name_in(host: str) -> str:
    """Return the name or address in a header ``Host``, in lower case and without the port.

    The result is empty if the header is malformed.
    """
    found = HOST.fullmatch(host)
    return (found[1] or found[2]).lower().removesuffix(".") if found else ""


def is_known(name: str, names: Collection[str]) -> bool:
    """Return True if ``name`` is an IP address, a name of the machine of the browser, or in ``names``."""
    if name and (name == "localhost" or name.endswith(".localhost") or name in names):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def only_for(names: Collection[str]) -> Any:
    """Return a middleware that refuses requests to unknown names, and requests from the pages of other sites.

    Args:
        names: the names of the server in lower case. IP addresses and ``localhost`` are always known.
    """

    @web.middleware
    async def refuse(request: web.Request, handler: Any) -> web.StreamResponse:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if not is_known(name_in(host), names):
            text = f"the server does not know the name {host!r}; for a name of this server, start it with --name NAME"
            return web.json_response({"error": text}, status=403)
        if origin and origin.partition("://")[2] != host:  # a browser sends the address of the other site
            return web.json_response({"error": f"requests from {origin} are refused"}, status=403)
        return await handler(request)

    return refuse
