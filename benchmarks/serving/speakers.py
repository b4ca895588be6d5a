"""Simulated speakers, who send audio to the page in real time, and measure the delay of the text."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple

import aiohttp
import numpy as np

BLOCK = 2048  # samples that a browser sends at once


class Delay(NamedTuple):
    """The delay of a chunk in ``seconds``. The text of the chunk arrived at second ``at`` of the measurement."""

    at: float
    seconds: float


class Speakers:
    """The speakers of a page.

    Args:
        address: the address of the page.
        rate: sample rate of the microphones in Hz.
        session: seconds after which a speaker stops and starts again; 0 for speakers who do not stop.

    Attributes:
        delays: the delays of all chunks.
    """

    def __init__(self, address: str, rate: int, session: float):
        self.address, self.rate, self.session = address, rate, session
        self.delays: list[Delay] = []
        self.begun = time.perf_counter()

    async def speak(self, number: int, seconds: float) -> None:
        """Speak for some seconds. Each speaker begins at another moment."""
        await asyncio.sleep(0.8 * np.random.default_rng(number).random())
        end = self.begun + seconds
        async with aiohttp.ClientSession() as session:
            while (left := end - time.perf_counter()) > 1.0:
                await self._say(session, number, min(left, self.session or left))

    async def ask_for_a_place(self) -> str:
        """Connect one more speaker, and return the first message."""
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.address}/live") as socket:
            await socket.send_json({"rate": self.rate})
            message = await socket.receive_json(timeout=20)
            return f"`{message['kind']}`, place {message['place']}"

    async def _say(self, session: aiohttp.ClientSession, number: int, seconds: float) -> None:
        sound = 0.1 * np.random.default_rng(number).standard_normal(10 * self.rate)
        samples = (32767 * sound.clip(-1, 1)).astype("<i2")
        async with session.ws_connect(f"{self.address}/live") as socket:
            await socket.send_json({"rate": self.rate})
            while (await socket.receive_json(timeout=60))["kind"] != "begin":
                pass
            sent: list[float] = []  # for each block, the time of sending it
            listener = asyncio.create_task(self._listen(socket, sent))
            start = time.perf_counter()
            for block in range(int(seconds * self.rate / BLOCK)):
                await asyncio.sleep(max(start + (block + 1) * BLOCK / self.rate - time.perf_counter(), 0))
                at = block * BLOCK % (len(samples) - BLOCK)
                sent.append(time.perf_counter())
                await socket.send_bytes(samples[at : at + BLOCK].tobytes())
            await socket.send_str("end")
            await listener

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, sent: list[float]) -> None:
        async for received in socket:
            message: dict[str, Any] = json.loads(received.data)
            if message["kind"] == "text":
                now, block = time.perf_counter(), int(message["seconds"] * self.rate / BLOCK)
                self.delays.append(Delay(now - self.begun, now - sent[min(block, len(sent) - 1)]))
            elif message["kind"] == "error":
                raise RuntimeError(message["add"])
