"""A page with a small model, in the loop of a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from nemo_squeezeformer.serving.server import address_of, bind
from nemo_squeezeformer.serving.web import Limits, Page

LIMITS = Limits(bytes=10**6, seconds=30.0, idle=30.0)


class Served:
    """A page that is being served.

    Attributes:
        address: the address of the page, without a slash at its end.
        reports: the lines about errors of the model.
    """

    def __init__(self, page: Page, reports: list[str]):
        self.reports, bound = reports, bind("127.0.0.1", 0)
        self.address = address_of(bound)
        self.loop = asyncio.new_event_loop()
        self.runner = web.AppRunner(page.application(), handler_cancellation=True, shutdown_timeout=1)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self._wait_for(self.runner.setup())
        self._wait_for(web.SockSite(self.runner, bound).start())

    def _wait_for(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def close(self) -> None:
        """Close all connections, as the command does after a signal."""
        self._wait_for(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()


@pytest.fixture(scope="module")
def model(streaming_hybrid):
    from tests.samples.streams import LATENCIES

    streaming_hybrid.encoder.set_default_att_context_size(LATENCIES[160])
    return streaming_hybrid


@pytest.fixture(scope="module")
def transcribe(hybrid_file):
    """The texts of files, by a second model from the same file."""
    import torch

    from nemo_squeezeformer.serving.uploads import Uploads
    from nemo_squeezeformer.transcription.models import load_model

    return Uploads(load_model(str(hybrid_file), torch.device("cpu")), LIMITS.seconds)


@pytest.fixture(scope="module")
def serve(model, transcribe) -> Iterator[Callable[..., Served]]:
    """Return a function that serves a page with two slots. The arguments replace arguments of ``Page``."""
    from nemo_squeezeformer.serving.captions import Captions
    from nemo_squeezeformer.transcription.live.streams import Streams
    from tests.samples.speech import RATE

    reports: list[str] = []
    captions = Captions(Streams(model, 2), RATE, reports.append)
    captions.start()
    open_pages: list[Served] = []

    def served(**changes: Any) -> Served:
        arguments = {"transcribe": transcribe, "captions": captions, "limits": LIMITS, "latency": 160} | changes
        open_pages.append(Served(Page("model.nemo", report=reports.append, **arguments), reports))
        return open_pages[-1]

    yield served
    for page in open_pages:
        if not page.loop.is_closed():
            page.close()
    captions.stop()


@pytest.fixture(scope="module")
def page(serve) -> Served:
    return serve()
