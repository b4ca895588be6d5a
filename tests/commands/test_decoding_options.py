"""The options of `transcribe` for decoding give the same texts as NeMo's decoders with the same settings."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import soundfile
import torch
from nemo.collections.asr.models import ASRModel

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription import hypotheses
from nemo_squeezeformer.transcription.decoding import confidence, ngram_file, strategy
from nemo_squeezeformer.transcription.decoding.strategy import Decoding, set_decoding
from tests.samples.asr_models import asr_model, spelling_model
from tests.samples.speech import RATE, WORDS, noise

SECONDS = (0.6, 0.8)
GREEDY = {"strategy": "greedy_batch", "greedy": {"max_symbols": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with recordings, a tokenizer, the sentences of a language model and three model files."""
    made = tmp_path_factory.mktemp("decoding")
    for number, seconds in enumerate(SECONDS):
        soundfile.write(made / f"{number}.wav", noise(seconds, number), RATE)
    text = [f"{a} {b}" for a in WORDS for b in WORDS]
    (made / "text.txt").write_text("\n".join(text))
    (made / "phrases.txt").write_text("seven\nnine two\n")
    (made / "tokenizer").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(made / "tokenizer" / "tokenizer"),
        vocab_size=32,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    (made / "tokenizer" / "vocab.txt").write_text("\n".join(WORDS))
    paths = recordings(made)
    hybrid = spelling_model("hybrid", paths, "bpe", tokenizer=made / "tokenizer")
    hybrid.save_to(str(made / "hybrid.nemo"))
    spelling_model("ctc", paths).save_to(str(made / "letters.nemo"))
    hybrid.change_decoding_strategy({"strategy": "tsd", "beam": {"beam_size": 3}}, decoder_type="rnnt", verbose=False)
    hybrid.save_to(str(made / "beam.nemo"))
    return made


@pytest.fixture(scope="module")
def lm(folder) -> Path:
    """The path of an n-gram model that the command `lm` wrote."""
    path = folder / "lm.arpa"
    assert main(["lm", str(folder / "hybrid.nemo"), str(folder / "text.txt"), "--output", str(path)]) == 0
    return path


def restored(path: Path) -> Any:
    return ASRModel.restore_from(str(path), map_location="cpu").eval()


@pytest.fixture(scope="module")
def hybrid(folder) -> Any:
    return restored(folder / "hybrid.nemo")


@pytest.fixture(scope="module")
def letters(folder) -> Any:
    return restored(folder / "letters.nemo")


@pytest.fixture
def saved_beam(folder) -> Any:
    """A model whose file has a beam search that cannot use a language model."""
    return restored(folder / "beam.nemo")


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def recordings(folder: Path) -> list[str]:
    return [str(folder / f"{number}.wav") for number in range(len(SECONDS))]


def texts(model: Any, folder: Path, settings: dict[str, Any], decoder: str) -> list[str]:
    """Return the texts that NeMo's Python interface finds with these settings."""
    model.change_decoding_strategy(settings, decoder_type=decoder, verbose=False)
    return [found.text for found in model.transcribe(recordings(folder), verbose=False, batch_size=2)]


def texts_of(model: Any, folder: Path, asked: Decoding, decoder: str) -> list[str]:
    """Return the texts after ``set_decoding``."""
    model.change_decoding_strategy(GREEDY, decoder_type=decoder, verbose=False)
    set_decoding(model, asked)
    return [found.text for found in model.transcribe(recordings(folder), verbose=False, batch_size=2)]


def run(*arguments: object) -> list[dict[str, Any]]:
    """Run `transcribe` for all recordings, and return the rows."""
    output = Path("out.jsonl")
    options = [*map(str, arguments), "--device", "cpu", "--output", str(output), "--force"]
    assert main(["transcribe", options[0], "0.wav", "1.wav", *options[1:]]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def refused(capsys, *arguments: object) -> str:
    """Return the message of a command that refuses its arguments in one line."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nemo-squeezeformer")]
    return message


@pytest.mark.parametrize("decoder", ["ctc", "rnnt"])
def test_the_texts_equal_the_texts_of_nemos_decoders(hybrid, folder, lm, decoder):
    """Each option changes the text of this model. Otherwise the comparison could not find a difference."""
    beam = "beam_batch" if decoder == "ctc" else "malsd_batch"
    wide = {"beam_size": 2, **({"beam_beta": 0.0} if decoder == "ctc" else {})}
    fused = {"ngram_lm_model": str(lm), "ngram_lm_alpha": 0.7}
    words = {"boosting_tree": {"key_phrases_list": ["seven", "nine two"]}, "boosting_tree_alpha": 1.5}
    asked_lm = Decoding(lm=str(lm), lm_weight=0.7)
    asked_words = Decoding(boost=("seven", "nine two"), boost_weight=1.5)
    plain = texts(hybrid, folder, GREEDY, decoder)
    seen = {tuple(plain)}
    for asked, settings in (
        (Decoding(beam=1), GREEDY),
        (Decoding(beam=2), {"strategy": beam, "beam": wide}),
        (asked_lm, {"strategy": "greedy_batch", "greedy": {"max_symbols": 2, **fused}}),
        (asked_lm._replace(beam=2), {"strategy": beam, "beam": wide | fused}),
        (asked_words, {"strategy": "greedy_batch", "greedy": {"max_symbols": 2, **words}}),
        (asked_words._replace(beam=2), {"strategy": beam, "beam": wide | words}),
        (asked_words._replace(lm=str(lm), lm_weight=0.7, beam=2), {"strategy": beam, "beam": wide | words | fused}),
    ):
        found = texts_of(hybrid, folder, asked, decoder)
        assert found == texts(hybrid, folder, settings, decoder), asked
        seen.add(tuple(found))
    assert len(seen) >= 5


def test_the_command_gives_the_same_texts(hybrid, folder, lm):
    options = ["--lm", lm, "--lm-weight", 0.7, "--boost", "phrases.txt", "--boost-weight", 1.5]
    for decoder in ("ctc", "rnnt"):
        asked = Decoding(lm=str(lm), lm_weight=0.7, boost=("seven", "nine two"), boost_weight=1.5)
        expected = texts_of(hybrid, folder, asked, decoder)
        assert [row["pred_text"] for row in run("hybrid.nemo", "--decoder", decoder, *options)] == expected
        assert expected != texts(hybrid, folder, GREEDY, decoder)


def test_a_hotword_appears_and_a_language_model_makes_its_words(hybrid, folder, lm):
    for decoder in ("ctc", "rnnt"):
        plain = " ".join(texts(hybrid, folder, GREEDY, decoder)).split()
        assert "seven" not in plain and not set(WORDS) & set(plain)
        boosted = texts_of(hybrid, folder, Decoding(boost=("seven",), boost_weight=5.0), decoder)
        assert all("seven" in text for text in boosted)
        modelled = texts_of(hybrid, folder, Decoding(lm=str(lm), lm_weight=2.0), decoder)
        assert set(WORDS) & set(" ".join(modelled).split())


def test_a_nemo_file_gives_the_texts_of_the_arpa_file(hybrid, folder, lm, capsys):
    arguments = ["lm", "hybrid.nemo", "text.txt", "--output", "lm.nemo", "--force"]
    assert main(arguments) == 0
    assert "1,000" not in (out := capsys.readouterr().out) and "100 sentences; transcribe with --lm lm.nemo" in out
    for decoder in ("ctc", "rnnt"):
        found = [texts_of(hybrid, folder, Decoding(lm=str(path), lm_weight=0.7), decoder) for path in (lm, "lm.nemo")]
        assert found[0] == found[1]


@pytest.mark.parametrize("decoder", ["ctc", "rnnt"])
def test_every_word_has_the_confidence_of_nemo(hybrid, folder, decoder):
    settings = GREEDY | {"confidence_cfg": {**strategy.CONFIDENCE, "preserve_word_confidence": True}}
    hybrid.change_decoding_strategy(settings, decoder_type=decoder, verbose=False)
    expected = hybrid.transcribe(recordings(folder), return_hypotheses=True, verbose=False, batch_size=2)
    rows = run("hybrid.nemo", "--decoder", decoder, "--confidence")
    assert [row["pred_text"] for row in rows] == [found.text for found in expected]
    for row, found in zip(rows, expected):
        assert [item["word"] for item in row["word_confidence"]] == found.text.split()
        numbers = [item["confidence"] for item in row["word_confidence"]]
        assert numbers == [round(float(number), confidence.DIGITS) for number in found.word_confidence]
        assert all(0 <= number <= 1 for number in numbers)
        assert len(set(map(float, found.word_confidence))) > 1 or len(numbers) == 1
        assert "timestamps" not in row


def test_tokens_without_a_text_and_parts_of_a_character_are_in_no_other_word(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 2),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=290,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    model = asr_model("ctc", "bpe", tokenizer=tmp_path)
    set_decoding(model, Decoding(confidence=True))
    confidence.divide_into_words(model)
    tokens = ["<s>", "\u2581", "o", "n", "</s>", "<0xC3>", "<0xA9>", "<unk>", "\u2581", "t", "</s>", "\u2581"]
    ids = model.tokenizer.tokens_to_ids(tokens)
    assert model.decoding.decode_ids_to_str(ids).split() == ["oné", "⁇", "t"]
    numbers = [0.0, 0.5, 1.0, 0.5, 0.0, 1.0, 1.0, 0.25, 0.5, 1.0, 0.0, 0.0]
    assert model.decoding._aggregate_token_confidence_subwords_sentencepiece([], numbers, ids) == [0.8, 0.25, 0.75]


def test_words_of_letters_have_the_confidence_of_their_letters(folder):
    plain = run("letters.nemo")
    rows = run("letters.nemo", "--confidence", "--timestamps")
    assert [row["pred_text"] for row in rows] == [row["pred_text"] for row in plain]
    for row in rows:
        assert [item["word"] for item in row["word_confidence"]] == row["pred_text"].split()
        assert all(0 <= item["confidence"] <= 1 for item in row["word_confidence"])
        assert len(row["timestamps"]["word"]) == len(row["word_confidence"])


def test_letters_are_grouped_at_spaces_and_the_transducer_of_letters_equals_nemo(folder):
    """NeMo's own function works for a transducer if no two spaces follow each other."""
    model = spelling_model("transducer", recordings(folder))
    set_decoding(model, Decoding(confidence=True))
    for found in model.transcribe(recordings(folder), return_hypotheses=True, verbose=False):
        words = confidence.words_of(model, found)
        assert [item["word"] for item in words] == found.text.split()
        if "  " not in found.text and not found.text.startswith(" "):
            expected = model.decoding._aggregate_token_confidence_chars(found.text.split(), found.token_confidence)
            assert [item["confidence"] for item in words] == [round(float(number), 3) for number in expected]


def test_without_output_the_words_with_confidence_are_json_lines(capfd):
    assert main(["transcribe", "hybrid.nemo", "0.wav", "--confidence", "--device", "cpu"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert {"word", "confidence"} == set(json.loads(line)["word_confidence"][0])


def test_a_saved_beam_search_keeps_its_size_and_its_strategy_is_replaced_by_one_with_the_features(saved_beam, lm):
    set_decoding(saved_beam, Decoding(lm=str(lm), lm_weight=0.5))
    decoding = saved_beam.cfg.decoding
    assert decoding.strategy == "malsd_batch" and decoding.beam.beam_size == 3
    with pytest.raises(UserError, match="--confidence: NeMo's beam search gives no confidence; pass --beam 1"):
        set_decoding(saved_beam, Decoding(confidence=True))
    set_decoding(saved_beam, Decoding(beam=1, confidence=True))
    assert saved_beam.cfg.decoding.strategy == "greedy_batch"


def test_bad_values_are_refused_before_the_model_is_opened(folder, capsys):
    """The file of the model is damaged, and the command does not notice."""
    with tarfile.open("damaged.nemo", "w") as archive:
        for name in ("model_config.yaml", "model_weights.ckpt"):
            archive.addfile(tarfile.TarInfo(name))
    Path("nan.arpa").write_text("\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\nnan\te\t0\n\n")
    for arguments, message in (
        (["--beam", 4, "--confidence"], "--confidence: NeMo's beam search gives no confidence; leave out --beam"),
        (["--boost", " "], "--boost: a phrase is empty"),
        (["--boost", "gone.txt"], "gone.txt: cannot be read"),
        (["--boost", 251 * "one "], "a phrase has 1,003 characters, and a phrase has at most 1,000; pass a few words"),
        (["--lm", "nan.arpa"], "nan.arpa has the 1-gram 'nan\\te\\t0', whose weight is not a finite number; make"),
        (["--confidence", "--format", "srt"], "--confidence: --format srt has no confidence; pass --format jsonl"),
        (["--lm", "gone.arpa"], "--lm gone.arpa: there is no such file; make the file with `nemo-squeezeformer lm`"),
        (["--lm", "text.txt"], "--lm text.txt is neither an ARPA file nor a .nemo file; make"),
        (["--lm-weight", 1], "--lm-weight needs --lm"),
        (["--boost-weight", 1], "--boost-weight needs --boost"),
    ):
        found = refused(capsys, "transcribe", "damaged.nemo", "0.wav", *arguments)
        assert message in found, found


def test_what_nemo_cannot_do_with_a_model_is_refused_with_a_remedy(hybrid, letters, lm):
    for model, asked, message in (
        (hybrid, Decoding(beam=4), "times: NeMo's beam search with CTC .*leave out --beam, or pass --decoder rnnt"),
        (hybrid, Decoding(boost=("café",)), "--boost café: the model has no token for a part of 'café'"),
        (hybrid, Decoding(lm="hybrid.nemo"), "--lm hybrid.nemo is not an n-gram model"),
        (letters, Decoding(lm=str(lm)), "lm.arpa was made for another model: it has 32 tokens, but the model has"),
        (letters, Decoding(boost=("seven",)), "--boost: .* sub-word units.* pass --lm"),
    ):
        if model is hybrid:
            model.change_decoding_strategy(GREEDY, decoder_type="ctc", verbose=False)
        with pytest.raises(UserError, match=message) as error:
            set_decoding(model, asked, timestamps=bool(asked.beam))
        assert "\n" not in str(error.value)


def test_a_beam_of_more_texts_than_outputs_is_refused_for_a_transducer(hybrid, folder):
    hybrid.change_decoding_strategy(GREEDY, decoder_type="rnnt", verbose=False)
    assert texts_of(hybrid, folder, Decoding(beam=33), "rnnt")
    with pytest.raises(UserError, match="--beam 34: .* at most 33 texts, .* has 33 outputs; pass --beam 33 or less"):
        set_decoding(hybrid, Decoding(beam=34))


def test_another_vocabulary_in_a_nemo_file_and_other_models_are_refused(lm):
    assert main(["lm", "hybrid.nemo", "text.txt", "--output", "other.nemo", "--force"]) == 0
    with pytest.raises(UserError, match="it has 32 tokens, but the model has 31"):
        ngram_file.check("other.nemo", 31)
    for tokens in (31, 33):
        with pytest.raises(UserError, match=f"it has 32 tokens, but the model has {tokens}"):
            ngram_file.check(str(lm), tokens)
    ngram_file.check(str(lm), 32)
    with pytest.raises(UserError, match="--lm: a model of class Linear is neither a CTC .* transducer; leave out --lm"):
        strategy.set_decoding(torch.nn.Linear(1, 1), Decoding(lm="other.nemo"))


def test_a_run_with_other_options_is_not_resumed(folder, lm, capsys, monkeypatch):
    def interrupt_the_second(batches):
        yield next(batches)
        raise KeyboardInterrupt

    options = ["transcribe", "hybrid.nemo", "0.wav", "1.wav", "--device", "cpu", "--output", "resumed.jsonl"]
    first = ["--batch-size", "1", "--lm", str(lm), "--boost", "seven"]
    decode = hypotheses.decode
    with monkeypatch.context() as patch:
        patch.setattr(hypotheses, "decode", lambda *given: interrupt_the_second(decode(*given)))
        assert main([*options, *first]) != 0
    assert Path("resumed.jsonl.partial").exists()
    for others, name in (
        ([], "--lm"),
        ([*first, "--lm-weight", "0.9"], "--lm-weight"),
        ([*first, "--boost", "nine"], "--boost"),
        ([*first, "--boost-weight", "2"], "--boost-weight"),
        ([*first, "--beam", "2"], "--beam"),
        ([*first, "--confidence"], "--confidence"),
    ):
        message = refused(capsys, *options, *others, "--resume")
        assert name in message, message
    assert main([*options, *first, "--resume"]) == 0


def test_the_command_lm_refuses_bad_arguments_before_it_opens_the_model(folder, capsys):
    for arguments, message in (
        (["text.txt", "--output", "lm.bin"], "must end with .arpa or .nemo"),
        (["text.txt", "--output", "letters.nemo"], "letters.nemo exists.*--force"),
        (["gone.txt", "--output", "new.arpa"], "gone.txt: cannot be read"),
        (["text.txt", "--output", "none/new.arpa"], "there is no folder none"),
    ):
        found = refused(capsys, "lm", "hybrid.nemo", *arguments)
        assert re.search(message, found), found
    assert not Path("new.arpa").exists()


def test_the_command_lm_names_text_without_tokens_and_shortens_long_n_grams(folder, capsys):
    Path("strange.txt").write_text("one two\ncafé\n")
    assert main(["lm", "letters.nemo", "strange.txt", "--order", "10", "--output", "strange.arpa", "--force"]) == 0
    out, err = capsys.readouterr()
    assert "no token for parts of 1 of 2 sentences, for example" in err
    assert "the longest sentence has 7 tokens, so the longest n-grams have 9 tokens" in err
    assert "9-grams from 2 sentences" in out
