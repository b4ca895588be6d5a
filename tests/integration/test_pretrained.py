"""Tests of pretrained models by name, from NVIDIA and from the Hugging Face hub, and of complete downloads."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import nemo
import pytest
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModelBPE
from nemo.core.classes import common
from nemo.utils.cloud import maybe_download_from_cloud
from omegaconf import OmegaConf

import nemo_squeezeformer
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.analysis.sizes import PUBLISHED
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration import pretrained
from nemo_squeezeformer.transcription.models import load_model
from tests.samples.asr_models import asr_model
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest

LISTS_THEM_ITSELF = nemo.__version__.startswith("2.")
ours_only = pytest.mark.skipif(LISTS_THEM_ITSELF, reason="this NeMo version lists and downloads the six models itself")
NAME = "stt_en_squeezeformer_ctc_small_medium_ls"
OTHER = "/v2/models/nvidia/nemo/other.nemo"  # the path of a model that is not a released Squeezeformer


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory) -> tuple[Any, bytes]:
    """A tiny model and its .nemo file. The encoder has its NeMo 2 name if that name leads to this package."""
    folder = tmp_path_factory.mktemp("pretrained")
    encoder = {} if LISTS_THEM_ITSELF else {"_target_": "nemo.collections.asr.modules.SqueezeformerEncoder"}
    model = asr_model("ctc", "bpe", tokenizer=tokenizer, encoder=encoder)
    model.save_to(str(folder / "tiny.nemo"))
    return model, (folder / "tiny.nemo").read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NEMO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def cached(cache: Path, name: str, location: str) -> Path:
    """Return the path where NeMo's ``from_pretrained`` looks before a download."""
    description = f"For details about this model, please visit {pretrained.CATALOG}/{name}"
    return cache / name / hashlib.md5((location + description).encode()).hexdigest() / f"{name}.nemo"


def equal(one: Any, other: Any) -> bool:
    weights = other.state_dict()
    return all(torch.equal(weight, weights[name]) for name, weight in one.state_dict().items())


class Released(BaseHTTPRequestHandler):
    """A handler that serves ``served`` at two paths. It announces ``missing`` more bytes than it sends."""

    served = b""
    missing = 0
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path not in (f"/v2/models/nvidia/nemo/{NAME}/versions/1.13.0/files/{NAME}.nemo", OTHER):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.served)))
        self.end_headers()
        self.wfile.write(self.served[: len(self.served) - self.missing])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(saved, monkeypatch) -> Iterator[type[Released]]:
    """A local server at the address of NVIDIA's server."""
    handler = type("Served", (Released,), {"served": saved[1], "asked": []})
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(pretrained, "NGC", f"http://127.0.0.1:{served.server_port}/v2/models/nvidia/nemo")
    yield handler
    served.shutdown()
    served.server_close()


@pytest.fixture
def no_network(monkeypatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(pretrained, "NGC", f"http://127.0.0.1:{port}/v2/models/nvidia/nemo")


@pytest.mark.parametrize("model", [EncDecCTCModelBPE, ASRModel])
def test_nemo_lists_the_six_models_once_with_their_addresses(model):
    infos = [info for info in model.list_available_models() if "squeezeformer" in info.pretrained_model_name]
    assert sorted(info.pretrained_model_name for info in infos) == sorted(pretrained.NAMES)
    for info in infos:  # in 2.7.3 NeMo lists the models itself
        name = info.pretrained_model_name
        assert info.location == pretrained.location(name)
        assert info.description == f"For details about this model, please visit {pretrained.CATALOG}/{name}"
    assert pretrained.location(NAME) == (
        f"https://api.ngc.nvidia.com/v2/models/nvidia/nemo/{NAME}/versions/1.13.0/files/{NAME}.nemo"
    )
    others = {info.pretrained_model_name for info in model.list_available_models()} - set(pretrained.NAMES)
    assert "stt_en_fastconformer_ctc_large" in others  # NeMo's models are still listed


def test_the_page_has_the_six_models_and_their_published_error_rates():
    page = (ROOT / "docs" / "released-checkpoints.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    written = {row[0]: tuple(map(float, row[3:])) for row in rows if row and row[0].startswith("stt_en_")}
    assert written == dict(zip(pretrained.NAMES, (published.wer_nemo for published in PUBLISHED.values())))


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_a_file_in_nemos_cache_is_restored_without_a_network(name, saved, cache):
    model, archive = saved
    path = cached(cache, name, pretrained.location(name))
    path.parent.mkdir(parents=True)
    path.write_bytes(archive)
    assert Path(ASRModel.from_pretrained(name, return_model_file=True)) == path
    if name == NAME:
        restored = EncDecCTCModelBPE.from_pretrained(name, map_location="cpu")
        assert isinstance(restored.encoder, nemo_squeezeformer.SqueezeformerEncoder) and equal(model, restored)


def test_a_model_starts_from_a_released_model_by_name(saved, cache):
    model, archive = saved
    path = cached(cache, NAME, pretrained.location(NAME))
    path.parent.mkdir(parents=True)
    path.write_bytes(archive)
    fresh = EncDecCTCModelBPE.from_pretrained(NAME, map_location="cpu")
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1)
    assert not equal(model, fresh)
    fresh.maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_pretrained_model": NAME}))
    assert equal(model, fresh)


@ours_only
@pytest.mark.parametrize("kind", [EncDecCTCModelBPE, ASRModel])
def test_a_released_model_is_downloaded_once_and_restored(kind, saved, server, cache):
    restored = kind.from_pretrained(NAME, map_location="cpu")
    assert type(restored) is EncDecCTCModelBPE and equal(saved[0], restored)
    path = cached(cache, NAME, pretrained.location(NAME))
    assert path.read_bytes() == saved[1] and [entry.name for entry in path.parent.iterdir()] == [path.name]

    assert Path(kind.from_pretrained(NAME, return_model_file=True)) == path and len(server.asked) == 1
    kind.from_pretrained(NAME, refresh_cache=True, return_model_file=True)
    assert len(server.asked) == 2 and path.read_bytes() == saved[1]


@ours_only
def test_another_model_is_downloaded_again_by_nemo_if_the_cache_must_be_refreshed(saved, server, cache):
    def download(**settings: bool) -> Path:
        return Path(common.maybe_download_from_cloud(f"{pretrained.NGC}/", "other.nemo", cache_dir=cache, **settings))

    path = download()
    assert path == cache / "other.nemo" and path.read_bytes() == saved[1] and server.asked == [OTHER]
    assert download() == path and len(server.asked) == 1
    path.write_bytes(b"old")
    assert download(refresh_cache=True) == path and path.read_bytes() == saved[1] and server.asked == [OTHER] * 2


@ours_only
@pytest.mark.parametrize("kind", [EncDecCTCModelBPE, ASRModel])
def test_without_a_network_the_error_names_the_model_the_address_and_the_remedies(kind, no_network, cache):
    with pytest.raises(UserError) as refused:
        kind.from_pretrained(NAME)
    message = str(refused.value)
    assert message.startswith(f"{NAME} could not be fetched from {pretrained.location(NAME)} (URLError: ")
    assert "refused" in message and "restore_from()" in message
    path = cached(cache, NAME, pretrained.location(NAME))
    assert str(path) in message and path.parent.is_dir() and not list(path.parent.iterdir())


@ours_only
def test_the_error_quotes_a_server_without_the_file(server):
    with pytest.raises(UserError, match="HTTPError: HTTP Error 404: Not Found"):
        ASRModel.from_pretrained("stt_en_squeezeformer_ctc_large_ls")


@ours_only
@pytest.mark.parametrize("missing", [1, 3000])
def test_a_broken_download_leaves_no_file_in_the_cache(missing, saved, server, cache):
    server.missing = missing
    with pytest.raises(UserError, match="ContentTooShortError"):
        ASRModel.from_pretrained(NAME)
    assert len(server.asked) == pretrained.ATTEMPTS
    assert not [path for path in cache.rglob("*") if path.is_file()]
    server.missing = 0
    assert equal(saved[0], ASRModel.from_pretrained(NAME, map_location="cpu"))

    server.missing = missing  # control: NeMo's own download leaves a partial file
    with pytest.raises(ValueError, match="Not able to download url right now"):
        maybe_download_from_cloud(f"{pretrained.location(NAME).rpartition('/')[0]}/", f"{NAME}.nemo", cache_dir=cache)
    assert (cache / f"{NAME}.nemo").stat().st_size == len(saved[1]) - missing


@ours_only
@pytest.mark.parametrize("served", ["<html>log in first</html>", None], ids=["a web page", "a cut archive"])
def test_an_incomplete_archive_is_not_kept(served, saved, server, cache):
    server.served = served.encode() if served else saved[1][: len(saved[1]) // 2]
    with pytest.raises(UserError, match="ReadError"):
        ASRModel.from_pretrained(NAME)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@ours_only
def test_a_failed_refresh_keeps_the_existing_file(saved, no_network, cache):
    path = cached(cache, NAME, pretrained.location(NAME))
    path.parent.mkdir(parents=True)
    path.write_bytes(saved[1])
    with pytest.raises(UserError):
        ASRModel.from_pretrained(NAME, refresh_cache=True)
    assert path.read_bytes() == saved[1]
    assert equal(saved[0], ASRModel.from_pretrained(NAME, map_location="cpu"))


def test_an_unknown_name_gives_nemos_own_error():
    for name in ("stt_en_squeezeformer_ctc_huge_ls", f"{NAME} "):
        with pytest.raises(FileNotFoundError, match=f"Model {name} was not found. Check cls.list_available_models"):
            ASRModel.from_pretrained(name)


@ours_only
def test_commands_print_the_message_without_a_traceback(no_network, tmp_path, capsys):
    write_manifest(tmp_path, utterances=1)
    assert main(["transcribe", NAME, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert pretrained.location(NAME) in error and "restore_from()" in error and "Traceback" not in error


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The cache of the hub, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_model_of_the_hub_is_restored_from_the_cache_of_the_hub(saved, hub):
    model, archive = saved
    repository = hub / "models--theodotus--stt_uk_squeezeformer_ctc_xs"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    (snapshot / "stt_uk_squeezeformer_ctc_xs.nemo").write_bytes(archive)
    restored = ASRModel.from_pretrained("theodotus/stt_uk_squeezeformer_ctc_xs", map_location="cpu")
    assert isinstance(restored.encoder, nemo_squeezeformer.SqueezeformerEncoder) and equal(model, restored)


def test_a_missing_model_of_the_hub_is_reported_with_the_remedy(hub):
    with pytest.raises(UserError, match="'someone/squeezeformer' is not a file, and it could not .* check the"):
        load_model("someone/squeezeformer", torch.device("cpu"))
