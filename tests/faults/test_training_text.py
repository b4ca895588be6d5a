"""Tests of the check of the training text: rows without text, unknown characters, and tokens without frames."""

from __future__ import annotations

import json
import logging as python_logging
import unicodedata
from pathlib import Path

import numpy
import pytest
import torch
from nemo.utils import logging

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.tokenizers import train_tokenizer
from nemo_squeezeformer.training import vocabularies
from nemo_squeezeformer.training.ctc_frames import ctc_frames, ctc_head
from nemo_squeezeformer.training.data_checks import text_check
from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types import MODEL_TYPES
from tests.samples.speech import WORDS

GOOD = ["one two", "three four", "five six", "seven eight", "nine zero"]
CHARACTERS, BPE = "squeezeformer_ctc_char", "squeezeformer_ctc_bpe"


def write(folder: Path, texts: list, name: str = "train", seconds: float = 2.0, **fields) -> Path:
    """Write a manifest without audio files. A text of None leaves the field out."""
    path = folder / f"{name}.json"
    rows = [
        {"audio_filepath": f"{name}{i}.wav", "duration": seconds, "text": text} | fields for i, text in enumerate(texts)
    ]
    for row in rows:
        if row["text"] is None:
            del row["text"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def warned():
    """Return the warnings of NeMo's log as a list."""
    found: list[str] = []

    class Keep(python_logging.Handler):
        def emit(self, record):
            if record.levelno >= python_logging.WARNING:
                found.append(record.getMessage())

    handler = Keep()
    logging._logger.addHandler(handler)
    yield found
    logging._logger.removeHandler(handler)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    """Return a SentencePiece tokenizer of lower-case words."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "words.txt").write_text("\n".join(WORDS))
    train_tokenizer([str(folder / "words.txt")], 20, str(folder / "tokenizer"))
    return folder / "tokenizer"


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory) -> Path:
    """Return the vocabulary of a WordPiece tokenizer of lower-case words."""
    folder = tmp_path_factory.mktemp("word_pieces")
    letters = sorted({letter for word in WORDS for letter in word})
    (folder / "vocab.txt").write_text("\n".join(["[UNK]", *letters, *(f"##{letter}" for letter in letters)]))
    return folder


def check(recipe: str, train: Path, *overrides: str, dev: Path | None = None) -> None:
    if dev is None:  # the same texts with other recordings
        dev = train.with_name("same.json")
        dev.write_text(train.read_text(encoding="utf-8").replace('_filepath": "', '_filepath": "same_'), "utf-8")
    given = [f"model.train_ds.manifest_filepath={train}", f"model.validation_ds.manifest_filepath={dev}"]
    text_check.check(compose(recipe, [*given, "trainer.max_steps=10", *overrides]))


def vocabulary(kind: str, pieces: Path, word_pieces: Path) -> tuple[str, list[str]]:
    """Return the recipe and the overrides for a kind of vocabulary."""
    aggregate = f"{{en: {{dir: {pieces}, type: bpe}}, de: {{dir: {word_pieces}, type: wpe}}}}"
    return {
        "characters": (CHARACTERS, []),
        "bpe": (BPE, [f"model.tokenizer.dir={pieces}"]),
        "wpe": (BPE, [f"model.tokenizer.dir={word_pieces}", "model.tokenizer.type=wpe"]),
        "langs": (BPE, ["model.tokenizer.type=agg", "model.tokenizer.dir=null", f"+model.tokenizer.langs={aggregate}"]),
        "transducer": ("squeezeformer_transducer_bpe", [f"model.tokenizer.dir={pieces}"]),
        "lhotse": (BPE, [f"model.tokenizer.dir={pieces}", "data=lhotse"]),
        "tarred": (
            BPE,
            [f"model.tokenizer.dir={pieces}", "data=tarred", "model.train_ds.tarred_audio_filepaths=a.tar"],
        ),
    }[kind]


KINDS = ["characters", "bpe", "wpe", "langs", "transducer", "lhotse", "tarred"]


@pytest.mark.parametrize("kind", KINDS)
def test_good_text_gives_no_message(tmp_path, warned, kind, pieces, word_pieces):
    recipe, more = vocabulary(kind, pieces, word_pieces)
    check(recipe, write(tmp_path, GOOD, lang="en"), *more)
    assert warned == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_unknown_characters_are_counted_with_place_and_remedy(tmp_path, warned, kind, pieces, word_pieces):
    recipe, more = vocabulary(kind, pieces, word_pieces)
    check(recipe, write(tmp_path, [*GOOD, "one TWO"], lang="en"), *more, dev=write(tmp_path, GOOD, "dev", lang="en"))
    (message,) = warned
    assert f"in 1 of 6 rows, the first: {tmp_path}/train.json, line 6" in message
    assert all(letter in message for letter in "TWO") and message.endswith("; write the text in lower case")
    assert ("of the training text are not in model.labels" in message) == (kind == "characters")


@pytest.mark.parametrize("kind", KINDS)
def test_training_text_of_mostly_unknown_characters_is_refused(tmp_path, kind, pieces, word_pieces):
    recipe, more = vocabulary(kind, pieces, word_pieces)
    manifest = write(tmp_path, ["ONE TWO", "THREE"], lang="en")
    with pytest.raises(UserError, match=r"train.json, line 1\).* write the text in lower case; with --skip-text-check"):
        check(recipe, manifest, *more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train_ds", "validation_ds", "test_ds"])
def test_rows_without_text_are_refused_in_every_split(tmp_path, kind, split, pieces, word_pieces):
    recipe, more = vocabulary(kind, pieces, word_pieces)
    good, bad = write(tmp_path, GOOD, lang="en"), write(tmp_path, ["one", None, None], "bad", lang="en")
    with pytest.raises(UserError, match=r"^2 of 3 rows of the .* data have no text \(the first: .*bad.json, line 2\)"):
        check(recipe, good, *more, f"model.{split}.manifest_filepath={bad}")


def test_a_null_text_is_no_text_and_a_number_is_refused_with_its_line(tmp_path):
    manifest = write(tmp_path, GOOD)
    manifest.write_text(manifest.read_text().replace('"five six"', "null"))
    with pytest.raises(UserError, match=r"1 of 5 rows .*line 3\)"):
        check(CHARACTERS, manifest)
    manifest.write_text(manifest.read_text().replace("null", "5"))
    with pytest.raises(UserError, match="line 3: text 5 is not"):
        check(CHARACTERS, manifest)


def test_validation_on_training_data_is_named(tmp_path, warned):
    train = write(tmp_path, GOOD)
    check(CHARACTERS, train, dev=train)
    (message,) = warned
    assert "5 of 5 recordings of the validation data are also training data (both have the manifest " in message


def test_empty_texts_are_counted_and_only_empty_texts_are_refused(tmp_path, warned):
    check(CHARACTERS, write(tmp_path, [*GOOD, "", " "]), dev=write(tmp_path, GOOD, "dev"))
    assert len(warned) == 1 and "2 of 7 rows of the training data have an empty text (the first: " in warned[0]
    with pytest.raises(UserError, match="all 2 rows of the training data have an empty text"):
        check(CHARACTERS, write(tmp_path, ["", ""]))


def test_a_row_of_an_aggregate_tokenizer_needs_a_known_language(tmp_path, pieces, word_pieces):
    recipe, more = vocabulary("langs", pieces, word_pieces)
    with pytest.raises(UserError, match="line 1: the row has no lang, but model.tokenizer.langs has .*en, de"):
        check(recipe, write(tmp_path, GOOD), *more)
    with pytest.raises(UserError, match="line 1: lang 'fr' has no tokenizer"):
        check(recipe, write(tmp_path, GOOD, lang="fr"), *more)


FRENCH = ["été à la mer", "où est le café", "déjà élevé", "une fenêtre"]
FORMS = {form: [unicodedata.normalize(form, text) for text in FRENCH] for form in ("NFC", "NFD")}


@pytest.mark.parametrize("trained, validated", [("NFC", "NFD"), ("NFD", "NFC")])
def test_validation_text_in_another_unicode_form_is_named(tmp_path, warned, trained, validated):
    train, dev = write(tmp_path, FORMS[trained]), write(tmp_path, FORMS[validated], "dev")
    check(CHARACTERS, train, "model.labels=null", dev=dev)
    (message,) = warned
    assert "of the validation text are not in model.labels" in message and "dev.json, line 1" in message
    assert message.endswith(f"; write the text in Unicode's form {trained}")


def test_a_tokenizer_that_normalizes_text_accepts_both_unicode_forms(tmp_path, warned):
    train, dev = write(tmp_path, FORMS["NFC"], seconds=5), write(tmp_path, FORMS["NFD"], "dev")
    train_tokenizer([str(train)], 22, str(tmp_path / "tokenizer"))
    check(BPE, train, f"model.tokenizer.dir={tmp_path}/tokenizer", dev=dev)
    assert warned == []


def test_validation_text_in_another_case_than_training_is_named_although_the_vocabulary_has_it(tmp_path, warned):
    labels = f"model.labels=[' ',{','.join('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ')}]"
    check(CHARACTERS, write(tmp_path, GOOD), labels, dev=write(tmp_path, ["One two", "THREE FOUR"], "dev"))
    (message,) = warned
    assert "of the validation text never occur in the training text" in message
    assert "dev.json, line 1" in message and message.endswith("; write the text in lower case")


LONG = "seven eleven seven eleven seven eleven"  # 38 characters; 2 s have 50 frames at 4x and 25 frames at 8x


@pytest.mark.parametrize(
    "recipe, warns",
    [
        (CHARACTERS, True),
        ("squeezeformer_transducer_char", False),
        ("squeezeformer_hybrid_transducer_ctc_char", True),
    ],
)
def test_utterances_that_ctc_cannot_align_are_counted_and_the_worst_is_named(tmp_path, warned, recipe, warns):
    manifest = write(tmp_path, [*GOOD, LONG, LONG + LONG])
    check(recipe, manifest, "rate=8x")
    if not warns:
        assert warned == []
        return
    (message,) = warned
    assert "2 of 7 utterances of the training data (29%)" in message
    assert "train.json, line 7 needs 76 and has 25" in message
    assert "set rate=4x, or use a recipe with sub-words" in message
    warned.clear()
    check(recipe, write(tmp_path, GOOD + [LONG]))
    assert warned == []


def test_a_layer_of_interctc_inside_the_unet_has_half_of_the_frames(tmp_path, warned):
    given = ["size=xs", "model.interctc.loss_weights=[0.3]"]
    check(CHARACTERS, write(tmp_path, [*GOOD, LONG]), *given, "model.interctc.apply_at_layers=[3]")
    assert warned == []
    check(CHARACTERS, write(tmp_path, [*GOOD, LONG]), *given, "model.interctc.apply_at_layers=[10]")
    assert "1 of 6 utterances" in warned[0] and "has 25. To keep these utterances, choose a layer outside" in warned[0]


def test_a_run_in_which_ctc_aligns_no_utterance_is_refused(tmp_path):
    with pytest.raises(UserError, match="5 of 5 utterances .*100%.*--skip-text-check"):
        check(CHARACTERS, write(tmp_path, GOOD, seconds=0.1))


def test_utterances_that_the_duration_leaves_out_are_not_counted(tmp_path, warned):
    short = write(tmp_path, GOOD, "short", seconds=0.05)
    both = f"model.train_ds.manifest_filepath=[{write(tmp_path, GOOD)},{short}]"
    check(CHARACTERS, short, both, "model.train_ds.min_duration=0.06", dev=write(tmp_path, GOOD, "dev"))
    assert warned == []


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["rate=8x"],
        ["+model.encoder.causal_downsampling=true"],
        ["model.encoder.subsampling=stacking"],
        ["model.encoder.subsampling=null"],
    ],
    ids=str,
)
def test_the_frames_of_ctc_are_the_frames_of_the_model(overrides):
    small = ["size=tiny", "model.encoder.n_layers=4", "model.encoder.time_reduce_idx=1", "model.train_ds=null"]
    cfg = compose(CHARACTERS, [*small, "model.validation_ds=null", *overrides])
    seconds = numpy.array([0.011, 0.1, 0.333, 0.64, 0.65, 1.2345, 1.0, 2.01])
    samples = torch.tensor((seconds * 16000).round().astype(int))
    with torch.no_grad():
        _, lengths, _ = build(cfg).eval()(
            input_signal=torch.randn(len(samples), int(samples.max())), input_signal_length=samples
        )
    assert ctc_frames(cfg, seconds).tolist() == lengths.tolist()
    assert ctc_head(cfg).halvings == 0


def test_the_frames_that_ctc_needs_decide_whether_the_loss_is_finite():
    known = vocabularies.Characters(["a", "b"])
    for text in ("ab", "aa", "aab", "abba", "aaaa", "a?a"):
        needed = known.encode([text])[0].frames
        targets = torch.tensor([["ab".index(letter) for letter in text if letter in "ab"]])
        for frames in (needed - 1, needed):
            scores = torch.zeros(frames, 1, 3).log_softmax(-1)
            loss = torch.nn.functional.ctc_loss(
                scores, targets, torch.tensor([frames]), torch.tensor([targets.size(1)]), blank=2, reduction="none"
            )
            assert bool(loss.isfinite()) == (frames == needed)


@pytest.mark.parametrize(
    "recipe",
    ["squeezeformer_classification", "squeezeformer_frame_vad", "squeezeformer_speaker", "squeezeformer_ssl"]
    + ["squeezeformer_nest", "squeezeformer_sortformer"],
)
def test_recipes_without_transcripts_are_not_checked(tmp_path, warned, recipe):
    more = ["model.labels=[a,b]"] if recipe == "squeezeformer_classification" else []
    check(recipe, write(tmp_path, [None, None], label="a"), *more)
    assert warned == []


def test_the_text_field_of_lhotse_is_used(tmp_path, pieces):
    manifest = write(tmp_path, [None] * 3, answer="one two")
    given = [f"model.tokenizer.langs.en.dir={pieces}", f"model.tokenizer.langs.spl_tokens.dir={pieces}"]
    fields = [f"model.{split}.text_field=answer" for split in ("train_ds", "validation_ds")]
    with pytest.raises(UserError, match="have no text"):
        check("squeezeformer_aed", manifest, *given)
    with pytest.raises(UserError, match="the row has no target_lang"):
        check("squeezeformer_aed", manifest, *given, *fields)
    check("squeezeformer_aed", write(tmp_path, [None] * 3, answer="one two", target_lang="en"), *given, *fields)


def test_the_manifests_of_an_input_cfg_are_checked(tmp_path, pieces):
    bad = write(tmp_path, ["one", None], "bad")
    inputs = f"model.train_ds.input_cfg=[{{type: group, input_cfg: [{{type: nemo, manifest_filepath: {bad}}}]}}]"
    given = [f"model.tokenizer.dir={pieces}", "data=lhotse", "model.train_ds.manifest_filepath=null"]
    with pytest.raises(UserError, match=r"1 of 2 rows .*bad.json, line 2\)"):
        check(BPE, write(tmp_path, GOOD), *given, inputs)


def test_only_a_model_with_a_prompt_takes_the_language_from_the_tags(tmp_path, pieces, word_pieces):
    recipe, more = vocabulary("langs", pieces, word_pieces)
    entry = f"{{type: nemo, manifest_filepath: {write(tmp_path, GOOD)}, tags: {{lang: en}}}}"
    given = [*more, "data=lhotse", "trainer.max_steps=10", "model.train_ds.manifest_filepath=null"]
    with pytest.raises(UserError, match="the row has no lang, but model.tokenizer.langs has"):
        check(recipe, write(tmp_path, GOOD, "other", lang="en"), *given, f"model.train_ds.input_cfg=[{entry}]")


@pytest.mark.parametrize("place", ["data set", "group"])
def test_a_data_set_of_an_input_cfg_has_its_own_fields_and_tags(place, tmp_path, pieces):
    """NeMo gives the fields and the tags of a group to all data sets of the group."""
    manifest = write(tmp_path, [None] * 3, answer="one two")
    given = [f"model.tokenizer.langs.en.dir={pieces}", f"model.tokenizer.langs.spl_tokens.dir={pieces}"]
    own = "text_field: answer, tags: {target_lang: en}"
    entry = f"{{type: nemo, manifest_filepath: {manifest}, {own if place == 'data set' else 'weight: 1'}}}"
    group = f"{{type: group, {own if place == 'group' else 'weight: 1'}, input_cfg: [{entry}]}}"
    given += [f"model.{split}.manifest_filepath=null" for split in ("train_ds", "validation_ds")]

    def check_inputs(old: str = "", new: str = "") -> None:
        inputs = [f"++model.{split}.input_cfg=[{group}]".replace(old, new) for split in ("train_ds", "validation_ds")]
        text_check.check(compose("squeezeformer_aed", [*given, *inputs, "trainer.max_steps=10"]))

    check_inputs()
    with pytest.raises(UserError, match="have no text"):
        check_inputs("text_field", "other_field")
    with pytest.raises(UserError, match="the row has no target_lang"):
        check_inputs("target_lang", "other_lang")


def test_train_refuses_the_text_before_the_model_is_built_and_the_option_skips_the_check(tmp_path, capsys):
    given = MODEL_TYPES["EncDecCTCModel"].overrides(tmp_path)
    manifest = tmp_path / "train.json"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row | {"text": row["text"].upper()}) + "\n" for row in rows))
    command = ["train", CHARACTERS, *given]
    assert main(command) == 2
    assert "characters of the training text are not in model.labels" in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()
    assert main([*command, "--skip-text-check"]) == 0
