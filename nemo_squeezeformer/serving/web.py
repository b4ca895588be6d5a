"""The requests of the page: its files, the captions of a microphone, and the text of an uploaded file."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, web

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.serving.microphone import Microphone
from nemo_squeezeformer.serving.names import only_for
from nemo_squeezeformer.serving.worker import Worker

if TYPE_CHECKING:
    from nemo_squeezeformer.serving.captions import Captions

PAGE = Path(__file__).parent / "page"
MOST_UPLOADS = 8  # uploads at once, with the uploads that wait for the model
LOCAL_ONLY = "default-src 'self'; img-src 'self' data:; media-src blob:; frame-ancestors 'none'"
BLOCK = 2**16  # bytes of an upload that are read at once
SLOWEST = 1000  # bytes per second of an upload; a slower upload would keep its place from others for hours
CLOSING = 1.0  # seconds in which a browser can answer that the connection ends; a lost browser does not answer


@dataclass(frozen=True)
class Limits:
    """The limits of the page.

    Attributes:
        bytes: maximum size of an uploaded file.
        seconds: maximum length of an uploaded file and of the captions of a speaker.
        idle: seconds without audio after which the captions of a speaker end, and seconds without data after which an
            upload ends. An upload with less than 1,000 bytes per second also ends, after these seconds.
    """

    bytes: int
    seconds: float
    idle: float


class Refused(Exception):
    """A request that cannot be answered. The message is the reason.

    Args:
        status: the status of the answer.
        reason: the reason.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Page:
    """The web application.

    Args:
        name: the name of the model.
        transcribe: a function from the path and the name of an audio file to the JSON of its text. It raises a
            UserError for a file that it cannot transcribe. One thread calls it.
        captions: the live captions, or None.
        no_captions: the reason why there are no live captions.
        latency: the latency of the live captions in milliseconds.
        limits: the limits of the page.
        report: receives one line about each error of the model.
        prepare: is called once in the thread that calls ``transcribe``, before the first file.
        names: the names of this server in lower case. The page also answers at IP addresses and at ``localhost``.
    """

    def __init__(
        self,
        name: str,
        transcribe: Callable[[str, str], dict[str, Any]],
        captions: Captions | None,
        limits: Limits,
        report: Callable[[str], None],
        no_captions: str = "",
        latency: int = 0,
        prepare: Callable[[], None] = lambda: None,
        names: Collection[str] = (),
    ):
        self.transcribe, self.captions, self.limits, self.report = transcribe, captions, limits, report
        self.names = frozenset(names)
        self.described: dict[str, Any] = {
            "name": name,
            "live": captions is not None,
            "reason": no_captions,
            "latency": latency,
        }
        self.described |= asdict(limits)
        self.worker = Worker("uploads", prepare)
        self.uploads = 0
        self.sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    def application(self) -> web.Application:
        """Return the application for aiohttp."""
        app = web.Application(middlewares=[only_for(self.names)])
        app.router.add_get("/", self._index)
        app.router.add_get("/model", self._model)
        app.router.add_get("/status", self._status)
        app.router.add_get("/live", self._live)
        app.router.add_post("/file", self._file)
        app.router.add_static("/page", PAGE)
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self._shut_down)
        return app

    def stop(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the thread of ``transcribe``. Return True if the thread has ended."""
        self.worker.stop()
        return self.worker.join(seconds)

    async def _index(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / "index.html")

    async def _model(self, request: web.Request) -> web.Response:
        return web.json_response(self.described)

    async def _status(self, request: web.Request) -> web.Response:
        counts = self.captions.counts() if self.captions else {"slots": 0, "speaking": 0, "waiting": 0}
        return web.json_response({**counts, "uploads": self.uploads})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if self.captions is None:
            return _problem(404, self.described["reason"])
        socket = web.WebSocketResponse(heartbeat=10, max_msg_size=2**20)
        await socket.prepare(request)
        self.sockets.add(socket)
        await Microphone(socket, self.captions, self.limits.seconds, self.limits.idle).serve()
        return socket

    async def _file(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "recording")
        if self.uploads >= MOST_UPLOADS:
            return _problem(503, f"{MOST_UPLOADS} files are already being sent or transcribed; try again in a minute")
        self.uploads += 1
        try:
            with tempfile.TemporaryDirectory(prefix="serve-") as folder:
                path = os.path.join(folder, f"recording{_extension(name)}")
                await self._save(request, path, name)
                return web.json_response(await self._transcribed(path, name))
        except Refused as refused:
            return _problem(refused.status, str(refused))
        finally:
            self.uploads -= 1

    async def _transcribed(self, path: str, name: str) -> dict[str, Any]:
        """Return the JSON of the text of a file. Raise ``Refused`` if the file has no text."""
        try:
            return await asyncio.wrap_future(self.worker.submit(self.transcribe, path, name))
        except UserError as error:
            raise Refused(422, str(error)) from None
        except Exception as error:  # an error of the model ends this request, and not the page
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.report(f"an error of the model has ended the transcription of a file: {reason}")
            raise Refused(500, f"The model has failed: {reason}") from None

    async def _save(self, request: web.Request, path: str, name: str) -> None:
        """Write the body of the request to ``path``. Raise ``Refused`` if the whole body cannot be written."""
        if (request.content_length or 0) > self.limits.bytes:
            raise self._too_large(name)
        size, begun = 0, time.monotonic()
        try:
            with open(path, "wb") as file:
                while block := await asyncio.wait_for(request.content.read(BLOCK), self.limits.idle):
                    size += len(block)
                    if size > self.limits.bytes:
                        raise self._too_large(name)
                    if size < SLOWEST * (time.monotonic() - begun - self.limits.idle):
                        raise Refused(408, f"{name} arrives with less than {SLOWEST:,} bytes per second; send it again")
                    file.write(block)
        except asyncio.TimeoutError:  # in new versions of Python also an OSError
            text = f"no data of {name} has arrived for {self.limits.idle:.0f} s; send it again"
            raise Refused(408, text) from None
        except (web.RequestPayloadError, ConnectionError) as error:
            raise Refused(400, " ".join(f"the file has not arrived: {error}".split())) from None
        except OSError as error:
            self.report(
                f"an uploaded file cannot be saved in {tempfile.gettempdir()}: {error.strerror}; free space there"
            )
            raise Refused(507, f"the server has no space for the file {name}; try again later") from None

    def _too_large(self, name: str) -> Refused:
        return Refused(413, f"{name} is larger than {self.limits.bytes / 1e6:.0f} MB, the limit of this page")

    async def _shut_down(self, app: web.Application) -> None:
        code, message = WSCloseCode.GOING_AWAY, b"the server has been stopped"
        closing = (socket.close(code=code, message=message) for socket in list(self.sockets))
        await asyncio.gather(*(asyncio.wait_for(each, CLOSING) for each in closing), return_exceptions=True)
        self.worker.stop()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Content-Security-Policy"] = LOCAL_ONLY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"


def _problem(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": text}), content_type="application/json")


def _extension(name: str) -> str:
    """Return the extension of a file name, or an empty text if the extension is unusual."""
    extension = os.path.splitext(name)[1].lower()
    return extension if re.fullmatch(r"\.[a-z0-9]{1,5}", extension) else ""
