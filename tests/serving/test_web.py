"""The requests of the page: captions over a WebSocket, files, limits, and what the page refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import io
import os
import re
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import numpy as np
import pytest
import soundfile
import srt

pytest.importorskip("nemo.collections.asr")

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.serving import microphone, uploads, web
from nemo_squeezeformer.serving.microphone import common
from nemo_squeezeformer.serving.speaker import Message
from tests.samples.speech import RATE, noise
from tests.samples.streams import LATENCIES, whole_texts
from tests.serving.conftest import LIMITS, Served
from tests.serving.talking import Client, until

SIXTEEN = noise(1.6, 4)
HEARD = (SIXTEEN * 32768).round().astype("<i2").astype(np.float32) / 32768  # after the conversion to 16 bits


def visit(page: Served, act: Callable[[aiohttp.ClientSession], Awaitable[Any]]) -> Any:
    """Run ``act`` with a session that opens addresses of the page."""

    async def visited() -> Any:
        async with aiohttp.ClientSession(page.address) as session:
            return await asyncio.wait_for(act(session), 60)

    return asyncio.run(visited())


def wav(sound: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV")
    return file.getvalue()


def upload(page: Served, data: bytes, name: str = "talk.wav") -> tuple[int, dict[str, Any]]:
    async def act(session):
        answer = await session.post("/file", params={"name": name}, data=data)
        return answer.status, await answer.json()

    return visit(page, act)


def test_captions_over_the_page_are_the_text_of_the_recording(model, page):
    async def act(session):
        client = await Client.connected(session, page.address, RATE)
        await client.receive("begin")
        await client.send(SIXTEEN)
        return await client.final()

    expected = whole_texts(model, [HEARD], "rnnt", LATENCIES[160])
    assert [visit(page, act)] == expected and len(expected[0]) > 10


def test_a_sample_rate_can_be_a_whole_float(page):
    async def act(session):
        client = await Client.connected(session, page.address, float(RATE))
        await client.receive("begin")

    visit(page, act)


def test_samples_after_the_end_of_the_audio_are_left_out(page):
    """A browser can send its last block after ``end``. The resampler of another sample rate refuses this block."""

    async def act(session, late):
        client = await Client.connected(session, page.address, 48_000)
        await client.receive("begin")
        await client.send(SIXTEEN)
        await client.socket.send_str("end")
        if late:
            await client.send(SIXTEEN)
        return await client.final()

    texts = [visit(page, lambda session, late=late: act(session, late)) for late in (False, True)]
    assert texts[0] == texts[1] != ""


def test_the_third_of_two_is_told_to_wait_and_begins_when_a_browser_is_closed(model, page):
    async def act(session):
        first, second = [await Client.connected(session, page.address, RATE) for _ in range(2)]
        for client in (first, second):
            await client.receive("begin")
        third = await Client.connected(session, page.address, RATE)
        assert (await third.receive("wait"))["place"] == 1
        await until(session, page.address, (2, 1))
        await second.send(SIXTEEN)
        await second.receive("text")
        second.socket._response.connection.transport.abort()  # a closed browser says no good-bye
        start = asyncio.get_running_loop().time()
        await third.receive("begin")
        assert asyncio.get_running_loop().time() - start < 2
        await third.send(SIXTEEN)
        text = await third.final()
        await first.socket.close()
        await until(session, page.address, (0, 0))
        return text

    assert [visit(page, act)] == whole_texts(model, [HEARD], "rnnt", LATENCIES[160])


@pytest.mark.parametrize(
    "limits, sound, note",
    [
        ({"idle": 0.5}, SIXTEEN, "No audio has arrived for 0 s."),
        ({"seconds": 1.0}, SIXTEEN, "Captions end after 1 s. Start again to go on."),
        ({}, noise(4.0), "The model is more than 1 s behind the microphone."),
    ],
    ids=["idle", "too long", "too fast"],
)
def test_captions_end_with_the_text_so_far_and_the_reason(serve, limits, sound, note, monkeypatch):
    monkeypatch.setattr(microphone, "FARTHEST_BEHIND", 1.0 if len(sound) > len(SIXTEEN) else 30.0)
    page = serve(limits=dataclasses.replace(LIMITS, **limits))

    async def act(session):
        client = await Client.connected(session, page.address, RATE)
        await client.receive("begin")
        await client.send(sound, piece=len(sound))
        assert (await client.receive("note"))["add"] == note
        await client.receive("final")
        assert client.text
        await until(session, page.address, (0, 0))

    visit(page, act)


@pytest.mark.parametrize(
    "first, problem",
    [
        ("hello", "the first message is not the sample rate"),
        (100_000 * "[", "the first message is not the sample rate"),
        ('{"rate": "high"}', "a sample rate of high Hz is not a whole number between 8000 and 192000 Hz"),
        ('{"rate": 10}', "a sample rate of 10 Hz is not a whole number between"),
        ('{"rate": 44100.5}', "a sample rate of 44100.5 Hz is not a whole number between"),
        ('{"rate": 1e999}', "a sample rate of inf Hz is not a whole number between"),
    ],
)
def test_a_connection_without_a_sample_rate_is_refused(page, first, problem):
    async def act(session):
        client = Client(await session.ws_connect("/live"))
        await client.socket.send_str(first)
        assert problem in (await client.receive("error"))["add"]
        assert (await client.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE

    visit(page, act)


def test_texts_do_not_accumulate_while_a_browser_does_not_read():
    class Socket:
        closed = False
        sent: ClassVar[list[dict[str, Any]]] = []

        async def send_json(self, row: dict[str, Any]) -> None:
            self.sent.append(row)
            await reads.wait()

        async def close(self) -> None:
            self.closed = True

    async def act() -> int:
        writer = asyncio.create_task(slow._write())
        slow._put(Message("begin"))
        await asyncio.sleep(0.01)
        for number in range(100):
            slow._put(Message("text", "abc" if number % 2 else "ab", number))
        waiting = len(slow.messages)
        reads.set()
        await asyncio.sleep(0.01)
        slow._put(Message("text", "abx", 100))
        slow._put(Message("note", "the end"))
        slow._put(Message("final", "abxe", 101))
        await asyncio.wait_for(writer, 10)
        return waiting

    reads, slow = asyncio.Event(), microphone.Microphone(Socket(), None, 9.0, 9.0)
    assert asyncio.run(act()) == 1
    shown = [(row["kind"], row["keep"], row["add"], row["seconds"]) for row in Socket.sent]
    assert shown == [
        ("begin", 0, "", 0),
        ("text", 0, "abc", 99),
        ("text", 2, "x", 100),
        ("note", 0, "the end", 0),
        ("final", 3, "e", 101),
    ]


@pytest.mark.parametrize("messages", [[], ["hello"], ['{"rate": 16000}'], ['{"rate": 16000}', "end"]], ids=str)
def test_a_browser_can_be_closed_at_any_moment(page, messages, caplog):
    async def act(session):
        for wait in (0.0, 0.02, 0.1):
            socket = await session.ws_connect("/live")
            transport = socket._response.connection.transport
            for message in messages:
                await socket.send_str(message)
            await asyncio.sleep(wait)
            transport.abort()
        await asyncio.sleep(0.2)
        await until(session, page.address, (0, 0))

    visit(page, act)
    assert [record for record in caplog.records if record.name.startswith(("aiohttp", "asyncio"))] == []


@pytest.mark.parametrize("data", [b"odd", "no such command"])
def test_wrong_data_end_the_connection_and_free_the_slot(page, data):
    async def act(session):
        client = await Client.connected(session, page.address, RATE)
        await client.receive("begin")
        await (client.socket.send_bytes(data) if isinstance(data, bytes) else client.socket.send_str(data))
        assert (await client.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        await until(session, page.address, (0, 0))

    visit(page, act)


def test_an_error_of_the_model_is_shown_as_text(model, page, monkeypatch):
    monkeypatch.setattr(model.encoder, "cache_aware_stream_step", lambda **_: 1 / 0)

    async def act(session):
        client = await Client.connected(session, page.address, RATE)
        await client.receive("begin")
        await client.send(SIXTEEN, piece=len(SIXTEEN))
        assert "ZeroDivisionError: division by zero" in (await client.receive("error"))["add"]
        await until(session, page.address, (0, 0))

    visit(page, act)
    assert "division by zero" in page.reports.pop()


def test_a_file_gives_text_word_times_and_subtitles_and_leaves_nothing_behind(page, transcribe, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, result = upload(page, wav(SIXTEEN))
    (best,) = transcribe.model.transcribe([HEARD], timestamps=True, verbose=False)
    assert status == 200 and result["text"] == best.text and result["seconds"] == pytest.approx(1.6)
    assert [word for word, _, _ in result["words"]] == [item["word"] for item in best.timestamp["word"]]
    starts = [start for _, start, _ in result["words"]]
    assert len(starts) > 1 and starts == sorted(starts) and starts[0] >= 0 and result["words"][-1][2] <= 1.7
    shown = " ".join(cue.content for cue in srt.parse(result["srt"]))
    assert shown.split() == result["text"].split() and result["vtt"].startswith("WEBVTT")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_another_rate_and_several_channels_is_transcribed(page):
    sound = np.stack([noise(1.0, 1), noise(1.0, 2)], axis=1)
    status, result = upload(page, wav(sound, 22_050))
    assert status == 200 and result["text"] and result["seconds"] == pytest.approx(16_000 / 22_050)


def test_a_long_file_is_cut_at_pauses_and_a_file_without_speech_has_an_empty_text(page, monkeypatch):
    pytest.importorskip("silero_vad")
    hiss = 0.001 * np.random.default_rng(0).standard_normal(2 * RATE)
    assert upload(page, wav(hiss))[1]["text"]
    monkeypatch.setattr(uploads, "LONG", 1.5)
    status, result = upload(page, wav(hiss))
    assert status == 200 and result["text"] == result["srt"] == "" and result["words"] == []


def test_a_file_can_be_stopped_between_its_batches(transcribe, tmp_path, monkeypatch):
    monkeypatch.setattr(transcribe, "stopped", threading.Event())
    batches = []

    def decode_cut(*arguments):
        with_words = arguments[-1]

        def decoded():
            for batch in range(3):
                batches.append(batch)
                transcribe.stop()
                yield []

        return with_words(decoded())

    monkeypatch.setattr(uploads, "LONG", 1.5)
    monkeypatch.setattr(uploads.detector, "is_installed", lambda: True)
    monkeypatch.setattr(uploads, "decode_cut", decode_cut)
    (tmp_path / "talk.wav").write_bytes(wav(SIXTEEN))
    for _ in range(2):  # the second file is refused before its first batch
        with pytest.raises(UserError, match="the server has been stopped"):
            transcribe(str(tmp_path / "talk.wav"), "talk.wav")
    assert batches == [0]


def test_a_bad_file_is_an_error_in_one_line_with_the_name_of_the_file(page, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for data, name, status, problem in (
        (b"no audio at all", "notes.txt", 422, "'notes.txt' is corrupt or has a format that is not read"),
        (b"", "empty.wav", 422, "'empty.wav' is empty (0 bytes)"),
        (
            wav(np.zeros((100, 8)), 96_000),
            "wide.wav",
            422,
            "wide.wav has 8 channels at 96000 Hz, and this page",
        ),
        (wav(noise(31.0)[::3], RATE // 3), "long.wav", 422, "long.wav has 31 s, and this page takes at most 30 s"),
        (bytes(LIMITS.bytes + 1), "large.wav", 413, "large.wav is larger than 1 MB, the limit of this page"),
    ):
        found, result = upload(page, data, name)
        assert found == status and problem in result["error"], result
        assert "\n" not in result["error"] and str(tmp_path) not in result["error"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_read_as_a_whole_has_a_limit_of_samples(page, monkeypatch):
    """Silence of an hour at a high rate is a small file."""
    monkeypatch.setattr(uploads, "MOST_WHOLE", 40_000)
    status, result = upload(page, wav(np.stack([SIXTEEN, SIXTEEN], axis=1)))
    assert status == 422 and result["error"] == (
        "talk.wav has 51,200 samples in all channels, and this page takes at most 40,000 samples of a file; convert it "
        "to one channel at 16000 Hz, or cut the recording"
    )
    assert upload(page, wav(SIXTEEN))[0] == 200


@pytest.mark.parametrize("installed", [True, False])
def test_a_file_that_needs_too_much_memory_is_refused_without_options_of_a_command(page, monkeypatch, installed):
    def refuse(*_, **__):
        raise UserError('pass --att-context-size "[128, 128]"')

    monkeypatch.setattr(uploads.long_audio, "notice_of_memory", refuse)
    monkeypatch.setattr(uploads.detector, "is_installed", lambda: installed)
    status, result = upload(page, wav(SIXTEEN))
    remedy = "" if installed else "; the owner of the server can also install the extra vad"
    assert status == 422 and result["error"] == (
        f"talk.wav has 2 s, and needs more memory than the server has; cut the recording into shorter files{remedy}"
    )


def test_a_large_file_without_a_length_in_its_request_is_refused(page):
    async def act(session):
        async def blocks():
            for _ in range(40):
                yield bytes(2**16)

        return (await session.post("/file", params={"name": "large.wav"}, data=blocks())).status

    assert visit(page, act) == 413


@pytest.mark.parametrize(
    ("pause", "error"),
    [
        (20, "no data of talk.wav has arrived for 0 s; send it again"),
        (0.1, "talk.wav arrives with less than 1,000 bytes per second; send it again"),
    ],
)
def test_an_upload_that_does_not_go_on_or_is_very_slow_is_ended(serve, pause, error):
    page = serve(limits=dataclasses.replace(LIMITS, idle=0.4))

    async def act(session):
        async def blocks():
            for byte in wav(SIXTEEN)[:100]:
                yield bytes([byte])
                await asyncio.sleep(pause)

        answer = await session.post("/file", params={"name": "talk.wav"}, data=blocks())
        status = await (await session.get("/status")).json()
        return answer.status, (await answer.json())["error"], status["uploads"]

    assert visit(page, act) == (408, error, 0)


def test_a_full_disk_is_not_an_error_of_the_model(page, monkeypatch):
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(web, "open", full, raising=False)
    status, result = upload(page, wav(SIXTEEN))
    assert status == 507 and result["error"] == "the server has no space for the file talk.wav; try again later"
    report = page.reports.pop()
    assert report.endswith(f"{os.strerror(errno.ENOSPC)}; free space there") and "model" not in report


def test_too_many_files_are_refused(page, monkeypatch):
    monkeypatch.setattr(web, "MOST_UPLOADS", 0)
    status, result = upload(page, wav(SIXTEEN))
    assert status == 503 and "0 files are already being sent or transcribed" in result["error"]


def test_an_error_of_the_model_with_a_file_is_shown_as_text(page, transcribe, monkeypatch):
    monkeypatch.setattr(transcribe.model, "transcribe_generator", lambda *_, **__: 1 // 0)
    status, result = upload(page, wav(SIXTEEN))
    assert status == 500 and result["error"].startswith("The model has failed: ZeroDivisionError")
    assert page.reports.pop().startswith("an error of the model has ended the transcription of a file: Zero")


def test_pages_of_other_sites_cannot_use_the_server(page):
    async def act(session):
        other = {"Origin": "http://other.example"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("/live", headers=other)
        answer = await session.post("/file", data=wav(SIXTEEN), headers=other)
        own = await session.get("/model", headers={"Origin": page.address})
        return refused.value.status, answer.status, own.status

    assert visit(page, act) == (403, 403, 200)


def test_only_known_names_open_the_page(serve):
    """A page of another site can point its own name to this server. Its requests have this name as the origin."""
    page = serve(names={"captions.example"})
    known = (
        "captions.example",
        "Captions.Example:443",
        "localhost:1",
        "a.localhost",
        "[::1]:1",
        "10.0.0.7",
        "127.0.0.1:9",
    )
    unknown = (
        "other.example",
        "other.example:7860",
        "localhost.other.example",
        "captions.example@other",
        "",
        "[::1",
        "a:b",
    )

    async def act(session):
        def headers(host):
            return {"Host": host, "Origin": f"http://{host}", "X-Forwarded-Host": "localhost"}

        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("/live", headers=headers("other.example"))
        assert refused.value.status == 403
        posted = await session.post("/file", data=wav(SIXTEEN), headers=headers("other.example:7860"))
        assert posted.status == 403
        assert "'other.example:7860'" in (text := (await posted.json())["error"]) and "--name" in text
        return [
            [(await session.get("/model", headers=headers(host))).status for host in hosts]
            for hosts in (known, unknown)
        ]

    assert visit(page, act) == [[200] * len(known), [403] * len(unknown)]


def test_the_page_requests_nothing_from_other_servers(page):
    async def act(session):
        answer = await session.get("/")
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        text = await answer.text()
        for name in re.findall(r'(?:src|href)="(page/[^"]+)"', text):
            assert (await session.get(f"/{name}")).status == 200
        return (await session.get("/page/../web.py")).status

    assert visit(page, act) == 404
    for file in (Path(web.__file__).parent / "page").iterdir():
        assert not re.search(r"//[a-z]+\.|@import|url\(", file.read_text(encoding="utf-8")), file.name


def test_a_model_that_does_not_stream_serves_files_and_gives_the_reason(serve):
    page = serve(captions=None, no_captions="the model cannot stream (full attention)", latency=0)

    async def act(session):
        described = await (await session.get("/model")).json()
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/live")
        return described["live"], described["reason"]

    assert visit(page, act) == (False, "the model cannot stream (full attention)")
    assert upload(page, wav(SIXTEEN))[0] == 200


def test_the_end_of_the_server_closes_the_connections(serve):
    page = serve()

    async def act(session):
        client = await Client.connected(session, page.address, RATE)
        await client.receive("begin")
        closing = asyncio.get_running_loop().run_in_executor(None, page.close)
        closed = await client.socket.receive(timeout=10)
        await closing
        return closed.data

    assert visit(page, act) == aiohttp.WSCloseCode.GOING_AWAY


def test_the_end_of_the_server_does_not_wait_for_each_lost_browser(monkeypatch):
    monkeypatch.setattr(web, "CLOSING", 0.2)
    closed = []

    class Lost:
        async def close(self, code: int, message: bytes) -> None:
            closed.append(code)
            await asyncio.sleep(5)  # aiohttp waits for the answer, or until the data before it are sent

    page, lost = web.Page("model.nemo", lambda path, name: {}, None, LIMITS, print), [Lost() for _ in range(3)]
    page.sockets.update(lost)
    start = time.monotonic()
    asyncio.run(page._shut_down(page.application()))
    assert closed == 3 * [aiohttp.WSCloseCode.GOING_AWAY] and time.monotonic() - start < 3


@pytest.mark.parametrize("shown, text, kept", [("", "a", 0), ("ab", "abc", 2), ("abc", "abx", 2), ("ab", "", 0)])
def test_only_the_change_of_a_text_is_sent(shown, text, kept):
    assert common(shown, text) == kept
