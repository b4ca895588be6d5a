"""Fixtures with the files that the commands of the pages need."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_squeezeformer.commands.tokenizer import train_tokenizer
from tests.samples import original_weights
from tests.samples.asr_models import asr_model, spelling_model


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Return a folder with the files that the pages name: recordings, manifests, tokenizers, models and weights."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    (folder / "recordings").mkdir()
    for split, utterances in {"train": 80, "dev": 2}.items():
        rows = []
        for i in range(utterances):
            audio = folder / "recordings" / f"{split}{i}.wav"
            soundfile.write(audio, rng.normal(0, 0.1, 16000), 16000)
            text = " ".join("".join(rng.choice(list("abcdefghijklmno"), 5)) for _ in range(2))
            rows.append(json.dumps({"audio_filepath": f"recordings/{audio.name}", "duration": 1.0, "text": text}))
        (folder / f"{split}.json").write_text("\n".join(rows))
    for recording in ("recording.wav", "hour.wav"):
        soundfile.write(folder / recording, rng.normal(0, 0.1, 24000), 16000)
    digits = folder / "digits"
    digits.mkdir()
    (digits / "recordings").symlink_to(folder / "recordings")
    for manifest in ("connected_train", "single_train", "connected_dev", "connected_test"):
        shutil.copy(folder / ("train.json" if "train" in manifest else "dev.json"), digits / f"{manifest}.jsonl")

    demo = folder / "build" / "demo"  # what `make demo` leaves there
    (demo / "speech" / "audio").mkdir(parents=True)
    (demo / "speech" / "recordings").symlink_to(folder / "recordings")
    (demo / "speech" / "audio" / "test").mkdir()
    soundfile.write(demo / "speech" / "audio" / "test" / "00001.flac", rng.normal(0, 0.1, 24000), 16000)
    for split in ("train", "dev"):
        shutil.copy(folder / f"{split}.json", demo / "speech" / f"{split}.jsonl")

    train_tokenizer([str(folder / "train.json")], 128, str(folder / "tokenizer"))
    shutil.copy(folder / "tokenizer" / "tokenizer.model", folder / "sp.model")
    shape = {"n_layers": 2, "time_reduce_idx": 0}
    window = {"window_size": 0.025}  # the window of the recipes; NeMo's default is 0.02
    asr_model(encoder=shape, preprocessor=window).save_to(str(folder / "model.nemo"))
    shutil.copy(folder / "model.nemo", demo / "squeezeformer.nemo")
    asr_model(encoder={**shape, "_target_": "nemo.collections.asr.modules.SqueezeformerEncoder"}).save_to(
        str(folder / "old.nemo")
    )
    tokens = folder / "tokenizer"
    recording = str(folder / "recording.wav")
    spelling_model("hybrid", [recording], "bpe", tokenizer=tokens, encoder=shape).save_to(str(folder / "hybrid.nemo"))
    contexts = {"streaming": True, "att_context_size": [[156, 25], [156, 11], [156, 3], [156, 1], [-1, -1]]}
    asr_model(encoder=shape | contexts, preprocessor=window | {"normalize": "NA", "pad_to": 0}).save_to(
        str(folder / "streaming.nemo")
    )
    if find_spec("h5py"):
        original_weights.write(folder / "squeezeformer-S.h5", d_model=16, n_layers=2, n_heads=4, vocabulary_size=128)
    return folder


@pytest.fixture
def folder(world, tmp_path, monkeypatch) -> Path:
    """Return a copy of the folder ``world``, and make it the working directory."""
    made = tmp_path / "folder"
    shutil.copytree(world, made, symlinks=True)
    monkeypatch.chdir(made)
    return made
