"""A client of the page: it sends audio as a browser does, and joins the text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import numpy as np


class Client:
    """The connection of one microphone. ``text`` is the text that the page would show."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self.socket, self.text = socket, ""

    @classmethod
    async def connected(cls, session: aiohttp.ClientSession, address: str, rate: float) -> Client:
        client = cls(await session.ws_connect(f"{address}/live"))
        await client.socket.send_json({"rate": rate})
        return client

    async def receive(self, *kinds: str) -> dict[str, Any]:
        """Return the next message of one of these kinds."""
        while True:
            message = json.loads((await self.socket.receive(timeout=20)).data)
            if message["kind"] in ("text", "final"):
                kept = self.text.encode("utf-16-le")[: 2 * message["keep"]].decode("utf-16-le")  # as JavaScript counts
                self.text = kept + message["add"]
            if message["kind"] in kinds:
                return message

    async def send(self, sound: np.ndarray, piece: int = 2048) -> None:
        samples = (sound * 32768).round().clip(-32768, 32767).astype("<i2").tobytes()
        for at in range(0, len(samples), 2 * piece):
            await self.socket.send_bytes(samples[at : at + 2 * piece])

    async def final(self) -> str:
        """End the audio, and return the final text."""
        await self.socket.send_str("end")
        await self.receive("final")
        assert (await self.socket.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE
        return self.text


async def counts(session: aiohttp.ClientSession, address: str) -> tuple[int, int]:
    """Return the number of speakers with a slot, and of speakers who wait."""
    status = await (await session.get(f"{address}/status")).json()
    return status["speaking"], status["waiting"]


async def until(session: aiohttp.ClientSession, address: str, expected: tuple[int, int], seconds: float = 5.0) -> None:
    """Wait until the server counts these speakers."""
    end = asyncio.get_running_loop().time() + seconds
    while (found := await counts(session, address)) != expected:
        assert asyncio.get_running_loop().time() < end, f"{found} and not {expected} after {seconds} s"
        await asyncio.sleep(0.02)
