"""`nemo-squeezeformer tokenizer`: it writes a folder that NeMo can read, or nothing."""

from __future__ import annotations

import json
import re

import pytest
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer, create_spt_model

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.files import tokenizers

SENTENCE = "it's green ships under many wandering mountains where nobody keeps watching quietly through long nights"
WORDS = SENTENCE.split()
TEXTS = [" ".join((a, b, c)) for a in WORDS for b in WORDS[::2] for c in WORDS[1::3]]


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "a manifest, with a comma.json"
    path.write_text(
        "".join(json.dumps({"audio_filepath": "a.wav", "duration": 1, "text": text}) + "\n" for text in TEXTS)
    )
    return path


def run(manifest, size, output, *more) -> int:
    return main(["tokenizer", str(manifest), "--vocab-size", str(size), "--output", str(output), *more])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_folder_equals_the_folder_that_nemo_writes(manifest, tmp_path, kind):
    assert run(manifest, 30, tmp_path / "ours", "--type", kind) == 0
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS) + "\n")
    create_spt_model(str(text), 30, -1, False, tokenizer_type=kind, output_dir=str(tmp_path / "nemos"))
    for file in ("vocab.txt", "tokenizer.vocab"):
        assert (tmp_path / "ours" / file).read_text() == (tmp_path / "nemos" / file).read_text()
    tokenizer = SentencePieceTokenizer(str(tmp_path / "ours" / "tokenizer.model"))
    assert tokenizer.vocab_size == 30
    assert all(tokenizer.ids_to_text(tokenizer.text_to_ids(text)) == text for text in TEXTS)


def test_a_trained_model_is_copied_without_changes(manifest, tmp_path, capsys):
    assert run(manifest, 30, tmp_path / "trained") == 0
    model = (tmp_path / "trained" / "tokenizer.model").rename(tmp_path / "sp.model")
    assert main(["tokenizer", str(model), "--output", str(tmp_path / "laid out")]) == 0
    assert (tmp_path / "laid out" / "tokenizer.model").read_bytes() == model.read_bytes()
    for file in ("vocab.txt", "tokenizer.vocab"):
        assert (tmp_path / "laid out" / file).read_text() == (tmp_path / "trained" / file).read_text()

    (tmp_path / "text.model").write_text("no model")
    for given, message in [
        ([str(model), str(manifest)], "give only the model"),
        ([str(model), "--vocab-size", "40"], "already trained; leave out --vocab-size"),
        ([str(tmp_path / "text.model")], "text.model is not a SentencePiece model"),
        ([str(tmp_path / "none.model")], "none.model cannot be read"),
        ([str(manifest)], "--vocab-size N is needed"),
    ]:
        assert main(["tokenizer", *given, "--output", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "size, bound", [(5000, r"largest that works is (\d+)"), (3, r"characters of the text alone need (\d+)")]
)
def test_the_error_for_an_impossible_size_names_a_possible_size(manifest, tmp_path, capsys, kind, size, bound):
    assert run(manifest, size, tmp_path / "out", "--type", kind) == 2
    named = re.search(bound, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert run(manifest, int(named[1]), tmp_path / "out", "--type", kind) == 0


def test_plain_text_and_several_files_are_read_together(manifest, tmp_path):
    (tmp_path / "more.txt").write_text("quartz jackdaw\n")
    assert (
        main(
            [
                "tokenizer",
                str(manifest),
                str(tmp_path / "more.txt"),
                "--vocab-size",
                "40",
                "--output",
                str(tmp_path / "o"),
            ]
        )
        == 0
    )
    assert "q" in (tmp_path / "o/vocab.txt").read_text()


def test_lower_case_converts_the_text_that_the_tokenizer_reads(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(TEXTS).upper())
    assert run(tmp_path / "t.txt", 25, tmp_path / "out", "--lower-case") == 0
    tokenizer = SentencePieceTokenizer(str(tmp_path / "out/tokenizer.model"))
    assert tokenizer.ids_to_text(tokenizer.text_to_ids("GREEN ships")) == "green ships"


def test_an_existing_folder_is_replaced_only_by_force_and_only_a_tokenizer(manifest, tmp_path, capsys):
    assert run(manifest, 25, tmp_path / "out") == 0
    before = (tmp_path / "out/vocab.txt").read_text()
    assert run(manifest, 30, tmp_path / "out") == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "out/vocab.txt").read_text() == before
    assert run(manifest, 5000, tmp_path / "out", "--force") == 2  # this fails and does not change the old folder
    assert (tmp_path / "out/vocab.txt").read_text() == before
    assert run(manifest, 30, tmp_path / "out", "--force") == 0
    assert (tmp_path / "out/vocab.txt").read_text() != before
    assert run(manifest, 30, tmp_path, "--force") == 2  # the folder that contains the manifest
    assert manifest.exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read"),
        ("", "there is no text"),
        ('{"text": " "}\n', "there is no text"),
        ("{}\nhello\n", "line 2: not a JSON object"),
    ],
)
def test_a_manifest_without_text_is_named(tmp_path, capsys, content, message):
    path = tmp_path / "m.json"
    if content is not None:
        path.write_text(content)
    assert run(path, 20, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error
    assert [entry.name for entry in tmp_path.iterdir()] == (["m.json"] if content is not None else [])


def test_start_and_end_pieces_have_the_ids_that_nemos_decoders_expect(manifest, tmp_path):
    options = ["--start-end-pad", "--append", "<EOU>", "--append", "<EOB>"]
    assert run(manifest, 28, tmp_path / "out", *options) == 0
    tokenizer = SentencePieceTokenizer(str(tmp_path / "out/tokenizer.model"))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 3, 30)
    assert [tokenizer.ids_to_text(i) for i in (28, 29)] == ["<EOU>", "<EOB>"]
    assert tokenizer.text_to_ids("ships<EOU>")[-1] == 28
    assert run(manifest, 25, tmp_path / "plain") == 0
    assert SentencePieceTokenizer(str(tmp_path / "plain/tokenizer.model")).bos_id == -1


def test_a_piece_that_is_already_in_the_vocabulary_cannot_be_appended(manifest, tmp_path, capsys):
    assert run(manifest, 25, tmp_path / "out", "--append", "▁") == 2
    assert "--append ▁" in capsys.readouterr().err


@pytest.mark.parametrize("pieces", [["<EOU>", "<EOU>"], [""]])
def test_an_empty_piece_and_a_piece_that_is_given_twice_are_refused_before_the_training(
    pieces, manifest, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(tokenizers, "train_model", lambda *_: pytest.fail("the tokenizer is trained"))
    assert run(manifest, 25, tmp_path / "out", *(word for piece in pieces for word in ("--append", piece))) == 2
    assert f"--append {' '.join(map(repr, pieces))}: give each piece once" in capsys.readouterr().err


@pytest.mark.parametrize(
    "output, options, message",
    [
        ("text.txt/a", [], "text.txt is not a folder; choose another --output"),
        ("text.txt/a/b", [], "text.txt is not a folder; choose another --output"),
        ("out", ["--append", "good day"], "--append 'good day': a piece with white space is never found"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_training(
    output, options, message, manifest, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(tokenizers, "train_model", lambda *_: pytest.fail("the tokenizer is trained"))
    (tmp_path / "text.txt").write_text("open")
    assert run(manifest, 25, tmp_path / output, *options) == 2
    assert message in capsys.readouterr().err


def test_texts_with_the_character_that_sentencepiece_reserves_are_used_without_the_character(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("open the hall gate\n" * 3 + "zebra quiz \u2585 jumps\n" * 5, encoding="utf-8")
    assert run(tmp_path / "t.txt", 21, tmp_path / "out") == 0
    assert "5 of 8 texts have the character '\u2585' (U+2585)" in (err := capsys.readouterr().err)
    assert f"the first is line 4 of {tmp_path / 't.txt'}" in err
    tokenizer = SentencePieceTokenizer(str(tmp_path / "out/tokenizer.model"))
    assert tokenizer.ids_to_text(tokenizer.text_to_ids("zebra quiz jumps")) == "zebra quiz jumps"
    (tmp_path / "t.txt").write_text("\u2585\n", encoding="utf-8")
    assert run(tmp_path / "t.txt", 21, tmp_path / "none") == 2
    assert "there is no text" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-5"])
def test_a_size_below_one_is_refused_by_the_option(size, manifest, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(manifest, size, tmp_path / "out")
    assert f"{size}: expected 1 or more" in capsys.readouterr().err


def test_the_special_pieces_need_more_than_four_pieces(manifest, tmp_path, capsys):
    for size in (1, 3, 4):
        assert run(manifest, size, tmp_path / "out", "--start-end-pad") == 2
        assert f"--vocab-size {size} is too small; " in capsys.readouterr().err


def test_a_size_that_no_tokenizer_can_have_is_refused(manifest, tmp_path, capsys):
    assert run(manifest, 10**12, tmp_path / "out") == 2
    assert "cannot train with --vocab-size 1000000000000" in capsys.readouterr().err
