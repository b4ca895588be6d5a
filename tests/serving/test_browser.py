"""The page in Chromium, whose microphone plays a WAV file."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import srt

pytest.importorskip("nemo.collections.asr")
pytest.importorskip("playwright")

from playwright import sync_api as playwright

from nemo_squeezeformer.commands import stream
from tests.samples.speech import RATE, noise
from tests.serving.conftest import LIMITS, Served

pytestmark = pytest.mark.slow
SECONDS = 4.0
WAV = noise(6.0, 5)
PATIENCE = 20_000  # milliseconds


@pytest.fixture(scope="module")
def wav(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("microphone") / "played.wav"
    soundfile.write(path, WAV, RATE)
    return path


@pytest.fixture(scope="module")
def browser(wav) -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"the test needs a browser, but not one of {', '.join(names)} is installed")
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options += [f"--use-file-for-fake-audio-capture={wav}"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=path, args=options)
        yield opened
        opened.close()


@pytest.fixture
def visits(browser) -> Iterator[Any]:
    """Return a function that opens a page as a new person. It collects the sent frames and all errors of the page."""
    contexts: list[Any] = []
    problems: list[str] = []

    def visit(page: Served) -> Any:
        context = browser.new_context(viewport={"width": 800, "height": 900})
        contexts.append(context)
        tab, sent = context.new_page(), []
        tab.set_default_timeout(PATIENCE)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: check(request.url, page.address))
        tab.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
        tab.goto(page.address)
        return SimpleNamespace(tab=tab, sent=sent, context=context)

    def check(url: str, address: str) -> None:
        if not url.startswith((address, "blob:", "data:")):
            problems.append(f"a request to {url}")

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def expect(tab: Any, selector: str) -> Any:
    return playwright.expect(tab.locator(selector))


def heard(sent: list[Any]) -> tuple[np.ndarray, int]:
    """Return the samples that a browser has sent, and their rate."""
    assert sent[-1] == "end"
    return np.frombuffer(b"".join(frame for frame in sent[1:-1]), "<i2"), json.loads(sent[0])["rate"]


def streamed(hybrid_file: Path, path: Path, capsys: Any) -> str:
    """Return the text of ``nemo-squeezeformer stream``."""
    parser = argparse.ArgumentParser()
    stream.add_arguments(parser)
    capsys.readouterr()
    assert stream.main(parser.parse_args([str(hybrid_file), str(path), "--latency", "160", "--device", "cpu"])) == 0
    return capsys.readouterr().out.splitlines()[-1].removeprefix("final\t")


def share_in_place(sound: np.ndarray) -> float:
    """Find each 250 ms of ``sound`` in the repeated WAV file, and return the share of the most frequent offset."""
    places, whole = [], np.concatenate([WAV, WAV, WAV]).astype(np.float64)
    for at in range(RATE // 2, len(sound) - RATE // 4, RATE // 4):
        part = sound[at : at + RATE // 4]
        size = 2 ** int(np.ceil(np.log2(len(whole) + len(part))))
        product = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(part, size)), size)
        place = int(product[: len(whole) - len(part)].argmax())
        there = whole[place : place + len(part)]
        if part @ there > 0.98 * np.sqrt((part @ part) * (there @ there)):
            places.append((place - at) % len(WAV))
    parts = len(range(RATE // 2, len(sound) - RATE // 4, RATE // 4))
    return max(sum(abs(place - other) <= 2 for other in places) for place in places) / parts


def test_the_captions_of_a_microphone_are_the_text_of_stream_for_the_audio_that_it_plays(
    page, visits, hybrid_file, tmp_path, capsys
):
    person = visits(page)
    tab = person.tab
    expect(tab, "#model").to_have_text("model.nemo, captions every 160 ms")
    tab.click("#start")
    expect(tab, "#state").to_have_text("Listening", timeout=PATIENCE)
    tab.wait_for_timeout(1000 * SECONDS / 2)
    middle = tab.locator("#captions").text_content()
    tab.wait_for_timeout(1000 * SECONDS / 2)
    tab.click("#stop")
    expect(tab, "#state").to_have_text("Done", timeout=PATIENCE)
    text = tab.locator("#captions").text_content()
    assert middle and text.startswith(middle) and len(text) > len(middle)

    samples, rate = heard(person.sent)
    assert len(samples) / rate > SECONDS - 1
    soundfile.write(tmp_path / "heard.wav", samples, rate)
    assert text == streamed(hybrid_file, tmp_path / "heard.wav", capsys)

    # Chromium repeats the file, which begins before the recording. If no audio is missing, all parts have one offset.
    # On a busy machine, Chromium itself can lose audio between two parts.
    sound = soxr.resample(samples / 32768, rate, RATE)
    assert share_in_place(sound) > 0.7
    assert share_in_place(np.delete(sound, slice(len(sound) // 2, len(sound) // 2 + 100))) < 0.7  # control


def test_a_person_waits_for_a_place_and_a_browser_that_is_closed_frees_its_place(page, visits):
    people = [visits(page) for _ in range(3)]
    for person in people[:2]:
        person.tab.click("#start")
        expect(person.tab, "#captions").not_to_be_empty(timeout=PATIENCE)
    waiting = people[2].tab
    waiting.click("#start")
    expect(waiting, "#state").to_have_text("All places are taken. You are number 1 in the line.")
    people[0].context.close()
    expect(waiting, "#state").to_have_text("Listening", timeout=5000)
    expect(waiting, "#captions").not_to_be_empty(timeout=PATIENCE)
    for person in people[1:]:
        person.tab.click("#stop")
        expect(person.tab, "#state").to_have_text("Done", timeout=PATIENCE)


def test_a_microphone_that_is_allowed_after_stop_is_released_at_once(page, visits):
    """The release does not wait for the script of the recorder. This script is never loaded here."""
    tab = visits(page).tab
    tab.evaluate(
        """() => {
            AudioWorklet.prototype.addModule = () => new Promise(() => {});
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            window.allowed = new Promise((allow) => { window.allow = allow; });
            navigator.mediaDevices.getUserMedia = async (asked) => {
                await window.allowed;
                return (window.media = await ask(asked));
            };
        }"""
    )
    tab.click("#start")
    expect(tab, "#state").to_have_text("The microphone is being opened")
    tab.click("#stop")
    expect(tab, "#start").to_be_enabled()
    states = "() => window.media?.getTracks().map((track) => track.readyState)"
    tab.evaluate("window.allow()")
    for _ in range(PATIENCE // 100):
        if tab.evaluate(states) == ["ended"]:
            break
        tab.wait_for_timeout(100)
    assert tab.evaluate(states) == ["ended"]


def test_a_file_gives_words_that_play_and_files_to_download(page, visits, wav, transcribe):
    tab = visits(page).tab
    expected = transcribe(str(wav), wav.name)
    tab.set_input_files("#audio", wav)
    tab.click("#transcribe")
    expect(tab, "#progress").to_have_text("6.0 s of audio", timeout=PATIENCE)
    assert tab.locator("#words span").all_text_contents() == [word for word, _, _ in expected["words"]]
    tab.locator("#words span").nth(2).click()
    assert tab.locator("#player").evaluate("player => player.currentTime") == pytest.approx(expected["words"][2][1])
    saved = {}
    for link in tab.locator("#downloads a").all():
        with tab.expect_download() as download:
            link.click()
        saved[download.value.suggested_filename] = Path(download.value.path()).read_text(encoding="utf-8")
    assert saved == {
        "played.txt": expected["text"] + "\n",
        "played.srt": expected["srt"],
        "played.vtt": expected["vtt"],
    }
    assert list(srt.parse(saved["played.srt"]))
    assert tab.locator("#times tr").count() == len(expected["words"])


def test_problems_are_shown_as_text(page, visits, serve, model, tmp_path, monkeypatch):
    tab = visits(page).tab
    for name, data, problem in (
        ("notes.wav", b"no audio", "'notes.wav' is corrupt or has a format that is not read"),
        ("large.wav", bytes(LIMITS.bytes + 1), "large.wav is larger than 1 MB, the limit of this page."),
    ):
        (tmp_path / name).write_bytes(data)
        tab.set_input_files("#audio", tmp_path / name)
        tab.click("#transcribe")
        expect(tab, "#progress").to_contain_text(problem)
        expect(tab, "#progress").to_have_class("problem")
    with monkeypatch.context() as patch:
        patch.setattr(model.encoder, "cache_aware_stream_step", lambda **_: 1 / 0)
        tab.click("#start")
        expect(tab, "#state").to_have_text("The model has failed: ZeroDivisionError: division by zero")
    expect(tab, "#start").to_be_enabled()

    tab = visits(serve(captions=None, no_captions="the model cannot stream (full attention)")).tab
    expect(tab, "#state").to_have_text("There are no live captions: the model cannot stream (full attention)")
    expect(tab, "#start").to_be_disabled()
