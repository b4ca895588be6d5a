"""The vocabulary of a fine-tuned model: the vocabulary of the file, or a new vocabulary with an untrained decoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.sentencepiece_model import read_model
from nemo_squeezeformer.training.data_checks.manifest_checks import characters
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import SPLITS

# NeMo's classes of models with characters, and the same models with sub-words.
WITH_SUB_WORDS = {
    "EncDecCTCModel": "EncDecCTCModelBPE",
    "EncDecRNNTModel": "EncDecRNNTBPEModel",
    "EncDecHybridRNNTCTCModel": "EncDecHybridRNNTCTCBPEModel",
}
MODELS = "nemo.collections.asr.models"
# The modules whose weights belong to the vocabulary, as NeMo's ``change_vocabulary`` replaces them.
OF_THE_VOCABULARY = ("decoder", "joint", "ctc_decoder")


@dataclass(frozen=True)
class Change:
    """The change of the vocabulary of a model.

    Attributes:
        new: the modules that start untrained; empty if the vocabulary is kept.
        words: the change in words.
    """

    new: tuple[str, ...]
    words: str


def change_vocabulary(cfg: Any, path: str, labels: Sequence[str], tokenizer: dict[str, Any] | None) -> Change:
    """Give a composed recipe for fine-tuning its vocabulary and the names of the weights to load.

    Args:
        cfg: the recipe. It is changed in place.
        path: the .nemo file.
        labels: the characters of the file, if the file has no tokenizer.
        tokenizer: the settings of the tokenizer of the file, or None.

    Raises:
        UserError: the model is of another class, the recipe names two vocabularies, or the training text is empty.
    """
    from omegaconf import open_dict

    kind = _kind(cfg, path)
    asked, letters = value(cfg, "model.tokenizer", {}), value(cfg, "model.char_labels", {})
    sub_words = bool(asked.pop("update_tokenizer", False) or asked.get("dir"))
    characters_asked = bool(letters.get("update_labels") or letters.get("labels"))
    if sub_words and characters_asked:
        raise UserError(
            f"model.tokenizer.dir={asked.get('dir')} and model.char_labels are both set; a model has sub-words or "
            "characters: remove one of the two settings"
        )
    changed = False
    if sub_words:
        changed = tokenizer is None or not _same(tokenizer, asked)
        tokenizer = asked
    elif characters_asked:
        given = letters.get("labels") or _characters(cfg)
        changed = tokenizer is not None or list(given) != list(labels)
        tokenizer, labels = None, given
    new = tuple(name for name in OF_THE_VOCABULARY if _has(cfg, name)) if changed else ()
    with open_dict(cfg):
        del cfg.model.char_labels
        del cfg.model.tokenizer
        if tokenizer is not None:
            cfg.model.tokenizer = tokenizer
        else:
            cfg.model.labels = list(labels)
            for split in SPLITS:
                if cfg.model.get(split) is not None:
                    cfg.model[split].labels = "${model.labels}"
        cfg.model_target = f"{MODELS}.{WITH_SUB_WORDS[kind] if tokenizer else kind}"
        if new:
            _forget_vocabulary(cfg, characters=tokenizer is None)
            cfg.model.optim_param_groups = {name: {"lr": "${squeezeformer.new_rate:}"} for name in new}
        else:
            cfg.fine_tuning.frozen_epochs = 0
        cfg.init_from_nemo_model = {"model": {"path": path, "exclude": [f"{name}." for name in new]}} if new else path
        del cfg.init_from_pretrained_model
    return Change(new, _words(cfg, new))


def _kind(cfg: Any, path: str) -> str:
    """Return NeMo's class of the model with characters."""
    name = str(value(cfg, "model_target")).rpartition(".")[2]
    found = {each: characters for characters, each in WITH_SUB_WORDS.items()} | {each: each for each in WITH_SUB_WORDS}
    if name not in found:
        raise UserError(
            f"{path} is of class {name}; --from trains CTC models, transducers and hybrids: use the recipe of this "
            f"model with +init_from_nemo_model={path}"
        )
    return found[name]


def _has(cfg: Any, module: str) -> bool:
    return value(cfg, "model.aux_ctc" if module == "ctc_decoder" else f"model.{module}") is not None


def _forget_vocabulary(cfg: Any, characters: bool) -> None:
    """Let NeMo fill in the sizes of the new vocabulary. A transducer takes them from the labels or the tokenizer."""
    for key in ("model.decoder", "model.aux_ctc.decoder"):
        if (section := value(cfg, key)) is not None and "num_classes" in section:
            decoder = cfg.model.aux_ctc.decoder if "aux_ctc" in key else cfg.model.decoder
            decoder.num_classes = -1
            decoder.vocabulary = "${model.labels}" if characters else []


def _same(tokenizer: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return True if two tokenizers have the same pieces in the same order."""
    return (pieces := _pieces(tokenizer)) is not None and pieces == _pieces(other)


def _pieces(tokenizer: dict[str, Any]) -> list[str] | None:
    """Return the pieces of a tokenizer, or None if the tokenizer is not one readable file."""
    folder, kind = tokenizer.get("dir"), str(tokenizer.get("type")).lower()
    if not folder or tokenizer.get("langs"):
        return None
    if kind == "bpe" and os.path.isfile(model := os.path.join(folder, "tokenizer.model")):
        pieces = read_model(model)[1]
        return [pieces.id_to_piece(number) for number in range(len(pieces))]
    if kind == "wpe" and os.path.isfile(words := os.path.join(folder, "vocab.txt")):
        with open(words, encoding="utf-8") as lines:
            return [line.rstrip("\n") for line in lines]
    return None


def _characters(cfg: Any) -> list[str]:
    named = value(cfg, "model.train_ds.manifest_filepath")
    letters = sorted(characters(named))
    if not letters:
        raise UserError(
            f"model.char_labels.update_labels=true, but {named} has no text and therefore no characters; give "
            "model.char_labels.labels"
        )
    return letters


def _words(cfg: Any, new: Sequence[str]) -> str:
    tokenizer = value(cfg, "model.tokenizer")
    if tokenizer is None:
        what = f"{len(cfg.model.labels)} characters"
    else:
        pieces = _pieces(tokenizer)
        what = f"the tokenizer {tokenizer['dir'] if new else 'of the file'}"
        what += f" ({len(pieces)} pieces)" if pieces else ""
    if not new:
        return f"all weights and {what} are kept"
    return f"the new vocabulary has {what}, so these modules start untrained: {', '.join(new)}"
