"""The connection of one microphone: it brings audio to the model, and captions back to the browser.

The browser first sends the sample rate as JSON, for example ``{"rate": 48000}``. After the answer ``begin`` it sends
raw 16-bit little-endian samples of one channel, and at the end the text ``end``. The server answers with JSON objects.
An object has the fields of ``Message``, but two fields replace ``text``: ``keep`` is the length of the unchanged
beginning of the text in UTF-16 code units, which JavaScript counts, and ``add`` is the new text after this beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import WSMsgType, web

from nemo_squeezeformer.serving.speaker import Message, Speaker

if TYPE_CHECKING:
    from nemo_squeezeformer.serving.captions import Captions

RATES = (8_000, 192_000)  # the lowest and the highest sample rate of a microphone in Hz
FARTHEST_BEHIND = 30.0  # seconds of audio that may wait for the model
REPLACED = ("text", "wait")  # the kinds of messages whose content the next message of the kind contains
LAST = ("final", "error")  # the kinds of messages after which the connection ends


class Microphone:
    """The connection of one microphone.

    Args:
        socket: the connection to the browser.
        captions: the live captions of all speakers.
        longest: seconds of audio after which the captions end.
        idle: seconds without audio after which the captions end.
    """

    def __init__(self, socket: web.WebSocketResponse, captions: Captions, longest: float, idle: float):
        self.socket, self.captions, self.longest, self.idle = socket, captions, longest, idle
        self.messages: deque[Message] = deque()
        self.arrived = asyncio.Event()  # set while ``messages`` has messages
        self.begun = 0.0  # time of the message ``begin``, or of the last audio; 0 before the message

    async def serve(self) -> None:
        """Serve the connection until its end. The slot of the speaker is then free."""
        loop = asyncio.get_running_loop()

        def tell(message: Message) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(self._put, message)

        try:
            speaker = self.captions.join(await self._rate(), tell)
        except (ValueError, OverflowError) as problem:
            with contextlib.suppress(ConnectionError):  # the browser has been closed
                await self._send(Message("error", str(problem)), "")
            return
        writer = asyncio.create_task(self._write())
        try:
            await self._read(speaker)
        finally:
            speaker.leave()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _rate(self) -> int:
        """Return the sample rate that the browser sends first.

        Raises:
            ValueError: the browser sends something else.
        """
        try:
            rate = json.loads((await self.socket.receive(self.idle)).data)["rate"]
        except (TypeError, KeyError, ValueError, RecursionError, asyncio.TimeoutError):
            raise ValueError('the first message is not the sample rate, for example {"rate": 48000}') from None
        whole = isinstance(rate, int) or (isinstance(rate, float) and rate.is_integer())
        if not whole or not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"a sample rate of {rate} Hz is not a whole number between {RATES[0]} and {RATES[1]} Hz")
        return int(rate)

    async def _read(self, speaker: Speaker) -> None:
        """Pass audio to the speaker until the browser or ``_write`` closes the connection."""
        bytes_read = 0
        while True:
            try:
                received = await self.socket.receive(timeout=1.0)
            except asyncio.TimeoutError:
                if self.begun and time.monotonic() - self.begun > self.idle and not speaker.ended:
                    self._end(speaker, f"No audio has arrived for {self.idle:.0f} s.")
                continue
            if received.type is WSMsgType.BINARY and len(received.data) % 2 == 0:
                speaker.hear(np.frombuffer(received.data, "<i2").astype(np.float32) / 32768)
                bytes_read += len(received.data)
                self.begun = self.begun and time.monotonic()
                if bytes_read / 2 / speaker.source_rate > self.longest:
                    self._end(speaker, f"Captions end after {self.longest:.0f} s. Start again to go on.")
                elif speaker.behind > FARTHEST_BEHIND:
                    self._end(speaker, f"The model is more than {FARTHEST_BEHIND:.0f} s behind the microphone.")
            elif received.type is WSMsgType.TEXT and received.data == "end":
                speaker.end()
            else:  # closed, or not of this protocol
                return

    def _end(self, speaker: Speaker, reason: str) -> None:
        if not speaker.ended:
            self._put(Message("note", reason))
            speaker.end()

    def _put(self, message: Message) -> None:
        """Add a message for ``_write``.

        A text replaces the text that waits directly before it, because a message has the whole text. ``_send`` computes
        the difference to the text that was sent last. The messages of a browser that does not read need little memory.
        """
        if self.messages and message.kind in REPLACED and self.messages[-1].kind == message.kind:
            self.messages.pop()
        self.messages.append(message)
        self.arrived.set()

    async def _next(self) -> Message:
        await self.arrived.wait()
        message = self.messages.popleft()
        if not self.messages:
            self.arrived.clear()
        return message

    async def _write(self) -> None:
        """Send the messages, and close the connection after the last message."""
        shown = ""
        with contextlib.suppress(ConnectionError):  # the browser has been closed
            while not self.socket.closed:
                message = await self._next()
                await self._send(message, shown)
                if message.kind == "begin":
                    self.begun = time.monotonic()
                if message.kind in ("text", "final"):
                    shown = message.text
                if message.kind in LAST:
                    await self.socket.close()

    async def _send(self, message: Message, shown: str) -> None:
        row: dict[str, Any] = {"kind": message.kind, "seconds": round(message.seconds, 3), "place": message.place}
        keep = common(shown, message.text) if message.kind in ("text", "final") else 0
        row |= {"keep": len(message.text[:keep].encode("utf-16-le")) // 2, "add": message.text[keep:]}
        await self.socket.send_json(row)


def common(shown: str, text: str) -> int:
    """Return the number of characters of the common beginning of two texts.

    The function is fast in the usual case, in which ``text`` begins with ``shown``.
    """
    return len(shown) if text.startswith(shown) else len(os.path.commonprefix([shown, text]))
