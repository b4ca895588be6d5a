"""The model types of models that have other tasks than transcription, or further tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nemo_squeezeformer.commands.tokenizer import train_tokenizer
from tests.samples.model_types.model_type import COMMON_KEYS, SPEECH_KEYS, ModelType, signals, spoken
from tests.samples.model_types.recognition import HYBRID, NARROW, TRANSDUCER
from tests.samples.speech import WORDS

Rows = Callable[[int], dict[str, Any]]
FEATURES = "model.preprocessor.features model.encoder.d_model model.encoder.subsampling_factor"
SPEECH = COMMON_KEYS + SPEECH_KEYS
UNLABELLED = COMMON_KEYS + FEATURES + " model.train_ds.manifest_filepath model.validation_ds.manifest_filepath"
CLASSES = UNLABELLED + " model.spec_augment.time_masks model.train_ds.labels model.test_ds.manifest_filepath"
TWO_BATCHES = (  # for Lhotse data loaders, whose epochs do not end
    "trainer.max_epochs=-1",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "model.train_ds.use_bucketing=false",
    "model.train_ds.batch_duration=null",
)


def rows(fields: Rows, folder: Path) -> list[str]:
    """Write the data of ``spoken`` and add ``fields(i)`` to row i of the manifests."""
    given = spoken(folder)
    for manifest in (folder / "train.json", folder / "dev.json"):
        written = [json.loads(line) for line in manifest.read_text().splitlines()]
        manifest.write_text("".join(json.dumps(row | fields(i)) + "\n" for i, row in enumerate(written)))
    return given


def tokenized(fields: Rows, folder: Path, **kind: Any) -> list[str]:
    """Write the data of ``rows`` and a SentencePiece tokenizer."""
    return [*rows(fields, folder), f"model.tokenizer.dir={word_pieces(folder, **kind)}"]


def word_pieces(folder: Path, **kind: Any) -> Path:
    """Train a tokenizer on the number words, because the text of four utterances is too short."""
    (folder / "words.txt").write_text("\n".join(WORDS))
    train_tokenizer([str(folder / "words.txt")], 20, str(folder / "tokenizer"), **kind)
    return folder / "tokenizer"


def prompted(folder: Path, tokens: Sequence[str] = ("translate", "transcribe", "en"), **fields: str) -> list[str]:
    """Write the rows that Canary reads, a tokenizer of the text, and NeMo's tokenizer of the prompt tokens."""
    from nemo.collections.common.tokenizers.canary_tokenizer import CanaryTokenizer

    asked = {"source_lang": "en", "target_lang": "en", "taskname": "asr", "pnc": "no"}
    given = rows(lambda i: asked | fields, folder)
    CanaryTokenizer.build_special_tokenizer(list(tokens), str(folder / "spl_tokens"))
    folders = {"spl_tokens": folder / "spl_tokens", "en": word_pieces(folder)}
    return [*given, *(f"model.tokenizer.langs.{lang}.dir={path}" for lang, path in folders.items())]


def labelled(i: int) -> dict[str, Any]:
    return {"label": ["no", "yes"][i % 2]}


def framewise(i: int) -> dict[str, Any]:
    """Return a label for each 40 ms: half speech, half silence."""
    return {"label": " ".join("01"[(i + stretch // 12) % 2] for stretch in range(25)), "offset": 0}


def backchannel(i: int) -> dict[str, Any]:
    return {"is_backchannel": i % 2 == 0}


def in_two_languages(i: int) -> dict[str, Any]:
    return {"target_lang": ["en-US", "de-DE"][i % 2]}


def conversations(folder: Path) -> list[str]:
    """Write recordings and an RTTM file in which two speakers take turns."""
    turns = [f"SPEAKER talk 1 {start:.2f} 0.40 <NA> <NA> speaker_{start} <NA> <NA>" for start in (0, 0.5)]
    (folder / "talk.rttm").write_text("\n".join(turns) + "\n")
    talk = {"rttm_filepath": str(folder / "talk.rttm"), "offset": 0, "num_speakers": 2}
    return rows(lambda i: talk, folder)


def encoded(model: Any, folder: Path) -> dict[str, Any]:
    """Return the encodings, without the forward of the model, which masks features at random."""
    samples, lengths = signals(folder)
    with torch.no_grad():
        features, lengths = model.preprocessor(input_signal=samples, length=lengths)
        x, lengths = model.encoder(audio_signal=features, length=lengths)
    return {"encoded": x, "lengths": lengths}


def logits(model: Any, folder: Path) -> dict[str, Any]:
    """Return the output of the decoder: logits of classes, of frames, or of speakers with their embeddings."""
    samples, lengths = signals(folder)
    with torch.no_grad():
        given = model.forward(input_signal=samples, input_signal_length=lengths)
    return dict(zip(("logits", "embeddings"), given if isinstance(given, tuple) else (given,)))


def decoded(model: Any, folder: Path) -> dict[str, Any]:
    """Return the encodings after the projection to the width of the decoder, and the text."""
    samples, lengths = signals(folder)
    with torch.no_grad():
        _, lengths, x, _ = model.forward(input_signal=samples, input_signal_length=lengths)
    paths = [str(path) for path in sorted(folder.glob("dev_*.wav"))]
    texts = [getattr(best, "text", best) for best in model.transcribe(paths, verbose=False)]
    return {"encoded": x, "lengths": lengths, "text": texts}


def told_the_language(model: Any, folder: Path) -> dict[str, Any]:
    """Return the encodings and the text in German. NeMo passes on the language for samples, but not for files."""
    samples, lengths = signals(folder)
    german = torch.tensor([model.cfg.model_defaults.prompt_dictionary["de-DE"]] * len(samples))
    told = {"prompt_indices": german}
    if "prompt_indices" not in model.input_types:  # NeMo 2.7.3 expects a row for each frame
        told = {"prompt": torch.nn.functional.one_hot(german, 128).float()[:, None].repeat(1, 64, 1)}
    with torch.no_grad():
        x, _ = model.forward(input_signal=samples, input_signal_length=lengths, **told)
    hypotheses = model.transcribe([row.numpy() for row in samples], target_lang="de-DE", verbose=False)
    return {"encoded": x, "text": [getattr(best, "text", best) for best in hypotheses]}


def transduced(model: Any, folder: Path) -> dict[str, Any]:
    """Return the encodings and the text of the transducer.

    NeMo's end-of-utterance models cannot transcribe with CTC.
    """
    samples, lengths = signals(folder)
    with torch.no_grad():
        x, _ = model.forward(input_signal=samples, input_signal_length=lengths)
    paths = [str(path) for path in sorted(folder.glob("dev_*.wav"))]
    return {"encoded": x, "text": [best.text for best in model.transcribe(paths, verbose=False)]}


def diarized(model: Any, folder: Path) -> dict[str, Any]:
    """Return the probability of each speaker in each frame."""
    samples, lengths = signals(folder)
    with torch.no_grad():
        return {"speakers": model.forward(audio_signal=samples, audio_signal_length=lengths)}


SHORT_SILENCE = (
    "model.train_ds.random_padding.min_post_pad_duration=0.1",
    "model.train_ds.random_padding.max_pad_duration=0.3",
    "model.validation_ds.random_padding.post_pad_duration=0.3",
)
TRANSFORMER = tuple(f"model.transf_decoder.{key}" for key in ("hidden_size=32", "inner_size=64", "num_layers=1"))
AED = (
    "model.model_defaults.lm_dec_hidden=32",
    "model.transf_decoder.config_dict.num_layers=1",
    "+model.restore_timestamps_model=false",  # NeMo would treat any restored model as such a model
    *TWO_BATCHES,
)
CODEBOOK = ("codebook_size=8", "num_negatives=4")
MODEL_TYPES: dict[str, ModelType] = {
    "SpeechEncDecSelfSupervisedModel": ModelType(
        spoken,
        encoded,
        (
            "model.train_ds.min_duration=0.1",
            "model.validation_ds.min_duration=0.1",
            "model.decoder_out=16",
            "model.loss_list.mlm.decoder.num_classes=64",
            *(f"model.loss_list.contrastive.loss.{key}" for key in CODEBOOK),
        ),
        UNLABELLED + " model.loss_list.mlm.is_active model.spec_augment.mask_patches",
        loss="train_contrastive",
    ),
    "EncDecDenoiseMaskedTokenPredModel": ModelType(
        spoken,
        encoded,
        ("model.num_classes=32", "model.masking.mask_prob=0.1"),
        UNLABELLED + " model.mask_position model.train_ds.noise_manifest model.masking.mask_prob model.num_books",
    ),
    "EncDecMultiTaskModel": ModelType(
        prompted, decoded, AED, SPEECH + " model.prompt_format model.tokenizer.langs spl_tokens.model_dir"
    ),
    "EncDecTransfModelBPE": ModelType(
        partial(tokenized, lambda i: {}, start_end_pad=True),
        decoded,
        (*TRANSFORMER, "model.transf_decoder.num_attention_heads=2", "model.beam_search.beam_size=2"),
        SPEECH + " model.tokenizer.dir model.beam_search.beam_size",
    ),
    "EncDecSpeakerLabelModel": ModelType(
        partial(rows, labelled), logits, ("model.decoder.num_classes=2",), CLASSES, loss="loss"
    ),
    "EncDecClassificationModel": ModelType(
        partial(rows, labelled), logits, ("model.labels=[no,yes]",), CLASSES, loss="loss"
    ),
    "SortformerEncLabelModel": ModelType(
        conversations,
        diarized,
        ("model.model_defaults.tf_d_model=16", "model.transformer_encoder.num_layers=1"),
        UNLABELLED + " model.max_num_of_spks model.streaming_mode model.sortformer_modules.chunk_len",
        loss="loss",
    ),
    "EncDecFrameClassificationModel": ModelType(partial(rows, framewise), logits, keys=CLASSES),
    **{
        name: ModelType(
            partial(tokenized, in_two_languages),
            told_the_language,
            (*NARROW, *TWO_BATCHES),
            keys + " model.model_defaults.prompt_dictionary",
        )
        for name, keys in (
            ("EncDecRNNTBPEModelWithPrompt", TRANSDUCER),
            ("EncDecHybridRNNTCTCBPEModelWithPrompt", HYBRID),
        )
    },
    **{
        name: ModelType(
            partial(tokenized, backchannel, append=("<EOU>", "<EOB>")),
            transduced,
            (*NARROW, *TWO_BATCHES, *SHORT_SILENCE),
            keys + " model.train_ds.random_padding",
        )
        for name, keys in (("EncDecRNNTBPEEOUModel", TRANSDUCER), ("EncDecHybridRNNTCTCBPEEOUModel", HYBRID))
    },
}
