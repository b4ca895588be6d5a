"""``serve``: its checks, its options, what it says, and its end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("nemo.collections.asr")

from nemo_squeezeformer.commands import serve
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import program
from nemo_squeezeformer.serving import uploads
from nemo_squeezeformer.transcription import models


@pytest.fixture(autouse=True)
def handlers_of_a_shell():
    """Set the handlers of a command that a shell starts. A background job of a shell ignores Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


def parsed(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args([*map(str, arguments), "--device", "cpu", "--port", "0"])


def served(capfd, visit: Callable[[str], object], *arguments: object, number: int = signal.SIGTERM) -> tuple[int, str]:
    """Run the command, call ``visit`` with the address of the page, and send a signal. Return the status and stderr."""
    said, found = [], []

    def guest() -> None:
        try:
            for _ in range(600):
                said.append(capfd.readouterr().err)
                if address := re.search(r"the page is open at (\S+)", "".join(said)):
                    found.append(visit(address[1]))
                    return
                time.sleep(0.1)
        except Exception as error:  # an error of this thread must fail the test
            found.append(error)
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=guest)
    thread.start()
    status = program.run("nemo-squeezeformer", lambda: serve.main(parsed(*arguments)))
    thread.join()
    assert found and not isinstance(found[0], Exception), found
    return status, "".join(said) + capfd.readouterr().err


def described(address: str) -> dict[str, object]:
    with urllib.request.urlopen(f"{address}/model", timeout=20) as answer:
        return json.load(answer)


def test_a_streaming_model_has_captions_at_the_chosen_latency_until_a_signal(hybrid_file, capfd):
    seen = []
    status, errors = served(
        capfd,
        lambda address: seen.append(described(address)),
        hybrid_file, "--latency", 160, "--speakers", 3, "--max-upload", 5, "--max-length", 60, "--idle", 9,
        number=signal.SIGINT,
    )  # fmt: skip
    limits = {"bytes": 5_000_000, "seconds": 60, "idle": 9}
    assert seen == [{"name": "model.nemo", "live": True, "reason": "", "latency": 160} | limits]
    assert status == 130 and errors.splitlines()[-1] == "nemo-squeezeformer: interrupted"
    assert "latency 160 ms (att_context_size [24, 3]), speakers at once: 3\n" in errors and "warning" not in errors


def test_a_model_that_does_not_stream_serves_files_and_says_why(ctc_file, capfd):
    seen = []
    status, errors = served(capfd, lambda address: seen.append(described(address)), ctc_file, "--host", "0.0.0.0")
    assert status == 143 and errors.splitlines()[-1] == "nemo-squeezeformer: terminated"
    assert seen[0]["live"] is False and "per_feature" in seen[0]["reason"]
    assert f"the page has no live captions, because {ctc_file} cannot stream: preprocessor.normalize" in errors
    assert "warning: everyone who reaches 0.0.0.0 can use the page" in errors


def test_the_page_opens_under_the_names_of_the_server(hybrid_file, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Machine")
    args = parsed(hybrid_file, "--host", "Localhost", "--name", "captions.example", "--name", "Other.Example")
    assert serve._names(args, loopback=True) == {"localhost", "captions.example", "other.example"}
    assert serve._names(args, loopback=False) == {"localhost", "captions.example", "other.example", "machine"}


def test_a_signal_ends_the_transcription_of_a_file_before_the_program_ends(ctc_file, capfd, monkeypatch):
    begun, ended = threading.Event(), threading.Event()

    def transcribe(self: uploads.Uploads, path: str, name: str) -> None:
        begun.set()
        assert self.stopped.wait(20)
        time.sleep(0.3)  # the end of the batch
        ended.set()

    def visit(address: str) -> None:
        def post() -> None:
            with contextlib.suppress(OSError):  # the server ends
                urllib.request.urlopen(f"{address}/file", data=b"audio", timeout=20).close()

        threading.Thread(target=post, daemon=True).start()
        assert begun.wait(20)

    monkeypatch.setattr(uploads.Uploads, "__call__", transcribe)
    assert served(capfd, visit, ctc_file)[0] == 143
    assert ended.is_set()


def test_captions_and_files_share_the_weights_but_not_the_context(hybrid_file):
    one, other = (models.load_model(str(hybrid_file), torch.device("cpu")) for _ in range(2))
    features, lengths = torch.randn(1, one.encoder._feat_in, 200), torch.tensor([200])
    for model in (one, other):
        models.optimize(model)
    other.encoder.set_default_att_context_size([-1, -1])
    with torch.inference_mode():
        expected = other.encoder(audio_signal=features, length=lengths)[0]
        uploads.share_weights(one, other)
        assert torch.equal(other.encoder(audio_signal=features, length=lengths)[0], expected)
        assert not torch.equal(one.encoder(audio_signal=features, length=lengths)[0], expected)
    assert memory([one, other]) == memory([one]) == memory([other])


def memory(loaded: list[torch.nn.Module]) -> int:
    """Return the bytes of the weights of the encoders, the decoders and the joint networks."""
    parts = [part for model in loaded for name, part in model.named_children() if name != "preprocessor"]
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def test_a_latency_for_a_model_that_does_not_stream_is_refused(ctc_file):
    with pytest.raises(UserError, match="ctc.nemo cannot stream: .*; leave out the latency to serve only files"):
        serve.main(parsed(ctc_file, "--latency", 160))


def test_too_many_speakers_for_the_memory_are_one_line(hybrid_file, monkeypatch):
    def streams(model: object, slots: int) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("nemo_squeezeformer.transcription.live.streams.Streams", streams)
    with pytest.raises(UserError, match="out of memory with --speakers 1000: pass a smaller --speakers"):
        serve.main(parsed(hybrid_file, "--speakers", 1000))


def test_wrong_arguments_are_refused_before_the_model_is_loaded(hybrid_file, monkeypatch):
    monkeypatch.setattr("nemo_squeezeformer.transcription.models.restore", None)
    with pytest.raises(UserError, match="there is no model file missing.nemo"):
        serve.main(parsed("missing.nemo"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        args = parsed(hybrid_file)
        args.port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--host 127.0.0.1 --port {args.port}: .*choose another port") as error:
            serve.main(args)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"--host no.such.host.invalid --port 0: the address cannot be used"):
        serve.main(parsed(hybrid_file, "--host", "no.such.host.invalid"))
    with pytest.raises(UserError, match=r"--host a..b --port 0: the address cannot be used .*; give a --host of this"):
        serve.main(parsed(hybrid_file, "--host", "a..b"))
    for wrong in (
        ["--port", "70000"],
        ["--port", "-1"],
        ["--speakers", "1001"],
        ["--name", "https://a"],
        ["--name", ""],
    ):
        with pytest.raises(SystemExit):
            parsed(hybrid_file, *wrong)
