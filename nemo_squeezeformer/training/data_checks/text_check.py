"""A check of the transcripts of all splits against the vocabulary and the frame rate of a recipe.

NeMo trains on all of these rows without a message: a row without text, a text of unknown tokens, an utterance with more
tokens than frames, whose CTC loss is 0, and a row of the validation data that is also training data.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_rows import good_rows
from nemo_squeezeformer.training.ctc_frames import ctc_frames, ctc_head
from nemo_squeezeformer.training.data_checks import shared_rows
from nemo_squeezeformer.training.nemo_log import warn
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import SPLITS, Split, TextRow, read_split
from nemo_squeezeformer.training.vocabularies import Characters, Encoded, Vocabulary, encode_rows, vocabularies

NO_TEXT = ("ClassificationModel", "LabelModel")  # the ends of the names of models whose rows have a label
MOSTLY = 0.5  # a larger share of unknown characters of the training text is an error
STRANGE = 0.01  # a larger share of characters of a split that the training text does not have gives a warning
SHOWN = 40  # characters in a message
WORST = 5  # utterances with too few frames that a message names
TRIED = 200  # rows on which another form of the text is tried
FORMS: Mapping[str, Callable[[str], str]] = {
    "in Unicode's form NFC": lambda text: unicodedata.normalize("NFC", text),
    "in Unicode's form NFD": lambda text: unicodedata.normalize("NFD", text),
    "in lower case": str.lower,
    "in upper case": str.upper,
    "in lower case and in Unicode's form NFC": lambda text: unicodedata.normalize("NFC", text.lower()),
}
AS_TRAINING = "write the text as the training text"
SKIP = "with --skip-text-check, training uses the text as it is"


def check(cfg: Any, say: Callable[[str], object] = warn) -> None:
    """Check the text of the local manifests of a composed recipe.

    A recipe whose model is not trained with text is not checked.

    Args:
        say: a function that gets each warning (default: NeMo's log shows the warnings).

    Raises:
        UserError: training would not learn the text: rows have no text, most characters of the training text are
            unknown, or CTC, the only loss, cannot align any utterance. The message names the first row and the remedy.
    """
    target = str(value(cfg, "model_target") or value(cfg, "model.target") or "")
    if target.endswith(NO_TEXT) or (value(cfg, "model.tokenizer") is None and "labels" not in cfg.model):
        return
    splits = {key: split for key in SPLITS if (split := read_split(cfg, key)) is not None and split.rows}
    for split in splits.values():
        _refuse_missing_text(split, say)
    for message in shared_rows.check(cfg):
        say(message)
    known = vocabularies(cfg)
    training = splits.get("train_ds")
    if not known and training and value(cfg, "model.tokenizer") is None:  # model.labels=null
        known = {None: Characters(sorted({letter for row in training.rows for letter in row.text or ""}))}
    if not known:
        return
    seen: set[str] | None = None
    for key, split in splits.items():
        rows = _spoken(split, known)
        encoded = encode_rows(rows, known)
        unknown = _check_unknown(split, rows, encoded, known, say)
        if key == "train_ds":
            _check_frames(cfg, rows, encoded, say)
            seen = set(_letters(rows, known))
        elif seen and not unknown:
            for message in of_unseen(split.name, _letters(rows, known, counts=True), seen, rows):
                say(message)


def _refuse_missing_text(split: Split, say: Callable[[str], object]) -> None:
    """Refuse rows without text. An empty text is a row without speech, and gives a warning."""
    missing = [row for row in split.rows if row.text is None]
    if missing:
        fields = next(row for number, row in good_rows(missing[0].manifest) if number == missing[0].number)
        raise UserError(
            f"{len(missing):,} of {len(split.rows):,} rows of the {split.name} data have no {split.field} (the first: "
            f'{missing[0].place}), and would teach the model to say nothing; add the text, write "{split.field}": "" '
            f"for recordings without speech, or remove the rows (the row has the fields: {', '.join(fields)}); {SKIP}"
        )
    empty = [row for row in split.rows if not (row.text or "").strip()]
    if len(empty) == len(split.rows):
        raise UserError(
            f"all {len(empty):,} rows of the {split.name} data have an empty {split.field} (the first: "
            f"{empty[0].place}), and teach the model to say nothing; add the text; {SKIP}"
        )
    if empty:
        say(
            f"{len(empty):,} of {len(split.rows):,} rows of the {split.name} data have an empty {split.field} (the "
            f"first: {empty[0].place}), and teach the model to say nothing; remove the rows if they contain speech"
        )


def _spoken(split: Split, known: Mapping[str | None, Vocabulary]) -> list[TextRow]:
    """Return the rows with the language of each row set to None if the recipe has a single vocabulary."""
    if None in known:
        return [row._replace(language=None) for row in split.rows]
    for row in split.rows:
        if row.language not in known:
            problem = f"{split.language_field} {row.language!r} has no tokenizer"
            if row.language is None:
                problem = f"the row has no {split.language_field}"
            raise UserError(
                f"{row.place}: {problem}, but model.tokenizer.langs has a tokenizer for each language "
                f"({', '.join(map(str, known))}); add the language to the row, or a tokenizer of the language"
            )
    return split.rows


def _letters(rows: list[TextRow], known: Mapping[str | None, Vocabulary], counts: bool = False) -> Counter[str]:
    """Return the characters of the texts, as the model sees the texts.

    Args:
        counts: if True, the result has the number of times that each character occurs, otherwise a number above 0.
    """
    counted: Counter[str] = Counter()
    for language, vocabulary in known.items():
        text = "\n".join(row.text or "" for row in rows if row.language == language)
        if not counts and text.isascii():  # the normalization of a long text is slow, and ASCII has nothing to compose
            text = "".join(set(text))
        text = vocabulary.normalized(text)
        counted.update(text if counts else set(text))
    return Counter({letter: number for letter, number in counted.items() if not letter.isspace() and letter != "▁"})


def _check_unknown(
    split: Split,
    rows: list[TextRow],
    encoded: list[Encoded],
    known: Mapping[str | None, Vocabulary],
    say: Callable[[str], object],
) -> bool:
    """Warn about unknown characters, or refuse them if most characters of the training text are unknown.

    Return True if the text has unknown characters.
    """
    touched = [row for row, each in zip(rows, encoded) if each.unknown]
    for language in dict.fromkeys(row.language for row in touched):
        own = [row for row in rows if row.language == language]
        _report_unknown(split, own, [row for row in touched if row.language == language], known[language], say)
    return bool(touched)


def _report_unknown(
    split: Split,
    rows: list[TextRow],
    touched: list[TextRow],
    vocabulary: Vocabulary,
    say: Callable[[str], object],
) -> None:
    seen = Counter("".join(row.text or "" for row in touched))
    missing = vocabulary.missing(letter for letter in seen if not letter.isspace())
    letters = "".join(letter for letter, _ in seen.most_common() if letter in missing)
    unknown, total = (
        sum(seen[letter] for letter in missing),
        sum(len("".join((row.text or "").split())) for row in rows),
    )
    what = f"{unknown:,} of {total:,} characters of the {split.name} text are"
    shown = f"{letters[:SHOWN]!r} ({unknown / total:.1%}, in {len(touched):,} of {len(rows):,} rows, the first: "
    shown += f"{touched[0].place})"
    if isinstance(vocabulary, Characters):
        problem = f"{what} not in model.labels and will be dropped: {shown}"
    elif letters:
        problem = f"{what} unknown to the tokenizer of {vocabulary.setting}: {shown}"
    else:
        problem = (
            f"{len(touched):,} of {len(rows):,} rows of the {split.name} text have words that are unknown to the "
            f"tokenizer of {vocabulary.setting}, the first: {touched[0].place}"
        )
    message = f"{problem}; {_remedy(split, vocabulary, touched)}"
    if split.key == "train_ds" and unknown > MOSTLY * total:
        raise UserError(f"{message}; {SKIP}")
    say(message)


def _remedy(split: Split, vocabulary: Vocabulary, rows: list[TextRow]) -> str:
    """Return the form of the text that the vocabulary has, or the vocabulary that the text needs."""
    if form := _form(vocabulary, rows):
        return form
    if split.key != "train_ds":
        return AS_TRAINING
    if isinstance(vocabulary, Characters):
        return "set model.labels=null to keep all characters"
    return "make a tokenizer of this text: nemo-squeezeformer tokenizer MANIFEST --vocab-size N --output DIR"


def _form(vocabulary: Vocabulary, rows: Sequence[TextRow]) -> str:
    """Return the form in which the vocabulary has the characters of the text, or ""."""
    text = "\n".join(row.text or "" for row in rows[:TRIED])
    before = _number_missing(vocabulary, text)
    forms = (name for name, form in FORMS.items() if _number_missing(vocabulary, form(text)) < 0.5 * before)
    return next((f"write the text {name}" for name in forms), "")


def _number_missing(vocabulary: Vocabulary, text: str) -> int:
    seen = Counter(letter for letter in text if not letter.isspace())
    return sum(seen[letter] for letter in vocabulary.missing(seen))


def of_unseen(name: str, letters: Counter[str], seen: set[str], rows: Sequence[TextRow]) -> Iterator[str]:
    """Yield a message if many characters do not occur in the training text. The model cannot learn these characters.

    Args:
        name: the name of the data in the message, for example ``validation``.
        letters: the characters of the data, and how often each character occurs.
        seen: the characters of the training text.
        rows: the rows of the data.
    """
    unseen = {letter: number for letter, number in letters.most_common() if letter not in seen}
    share = sum(unseen.values()) / max(1, sum(letters.values()))
    if share <= STRANGE:
        return
    touched = [row for row in rows if not set(unseen).isdisjoint(row.text or "")] or rows
    remedy = _form(Characters(sorted(seen)), touched) or AS_TRAINING
    yield (
        f"{share:.1%} of the characters of the {name} text never occur in the training text: "
        f"{''.join(unseen)[:SHOWN]!r} (the first row: {touched[0].place}), so the error rates are too high; {remedy}"
    )


def _check_frames(cfg: Any, rows: list[TextRow], encoded: list[Encoded], say: Callable[[str], object]) -> None:
    """Count the utterances of the training data that CTC cannot align, and name the worst utterances.

    NeMo sets the loss of these utterances to 0. The other utterances train normally, so the message is a warning.
    """
    import numpy

    head = ctc_head(cfg)
    if head is None or value(cfg, "model.train_ds.random_padding") is not None:  # the padding adds frames
        return
    timed = [(row, each) for row, each in zip(rows, encoded) if row.seconds]
    if not timed:
        return
    frames = ctc_frames(cfg, numpy.array([row.seconds for row, _ in timed]), head.halvings)
    needed = numpy.array([each.frames for _, each in timed])
    short = frames < needed
    number = int(short.sum())
    if not number:
        return
    lack = numpy.where(short, needed / numpy.maximum(frames, 1), 0)
    worst = [int(each) for each in numpy.argsort(-lack, kind="stable")[: min(WORST, number)]]
    named = ", ".join(f"{timed[each][0].place} needs {needed[each]} and has {frames[each]}" for each in worst)
    message = (
        f"{number:,} of {len(timed):,} utterances of the training data ({number / len(timed):.0%}) have more tokens "
        f"than the CTC loss of {head.name} has frames. The loss of these utterances is 0, so training learns nothing "
        f"from them. The worst: {named}. "
    )
    message += _more_frames(cfg, head.halvings, number / len(timed))
    if head.only and number == len(timed):
        raise UserError(f"{message}; {SKIP}")
    say(message)


def _more_frames(cfg: Any, halvings: int, share: float) -> str:
    remedies = []
    # Fine-tuning keeps the frame rate of the file.
    if (value(cfg, "model.encoder.subsampling_factor") or 1) > 4 and value(cfg, "fine_tuning") is None:
        remedies.append("set rate=4x")
    if halvings:
        remedies.append("choose a layer outside the temporal U-Net")
    tokenized = value(cfg, "model.tokenizer") is not None
    remedies.append(
        "use a larger vocabulary, whose sub-words are longer" if tokenized else "use a recipe with sub-words"
    )
    if share < 0.05:
        remedies.append("correct the text or the duration of these rows")
    return "To keep these utterances, " + ", or ".join(remedies)
