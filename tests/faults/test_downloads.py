"""Tests that a download from a slow or wrong server ends in an error and leaves nothing in the cache."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration import pretrained

STALL = 0.3  # seconds


class Slow(BaseHTTPRequestHandler):
    """A handler that stops answering, sends single bytes, or announces a wrong size."""

    kind = "header"
    released: threading.Event

    def do_GET(self) -> None:
        if self.kind == "header":
            self.released.wait(20)
            return
        self.send_response(200)
        self.send_header(
            "Content-Length", {"middle": "1000", "short": "1000", "drip": "100000", "no number": "many"}[self.kind]
        )
        self.end_headers()
        while self.kind == "drip" and not self.released.wait(STALL / 5):
            self.wfile.write(b"x")
            self.wfile.flush()
        self.wfile.write(b"x" * 500)
        self.wfile.flush()
        if self.kind == "middle":
            self.released.wait(20)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[tuple[type[Slow], str]]:
    """A local server and its address."""
    importlib.import_module("nemo.utils")  # fetch imports NeMo, which can take longer than the timer of the test
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(pretrained, "STALL", STALL, raising=False)
    handler = type("Served", (Slow,), {"released": threading.Event()})
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    yield handler, f"http://127.0.0.1:{served.server_port}/model.nemo"
    handler.released.set()
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("header", "timed out"),
        ("middle", "timed out"),
        ("drip", "the server sent only [0-9]+ bytes in"),
        ("short", "received 500 of 1000 bytes"),
        ("no number", "many"),
    ],
)
def test_a_download_that_stalls_or_ends_early_leaves_nothing_in_the_cache(kind, reason, server, tmp_path):
    handler, address = server
    handler.kind = kind
    threading.Timer(8.0, handler.released.set).start()  # ends the wait of a download without a time-out
    start, path = time.monotonic(), Path(tmp_path, "cache", "model.nemo")
    with pytest.raises(UserError, match=reason) as error:
        pretrained.fetch(address, path)
    assert address in str(error.value) and time.monotonic() - start < 5.0
    assert list(path.parent.iterdir()) == []
