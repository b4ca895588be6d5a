"""The text of the output formats, from the rows of all utterances."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_squeezeformer.commands.rows import recording_names
from nemo_squeezeformer.commands.rows.partial_lines import Row, json_line
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.subtitles import Word, cues, srt, vtt, words_of

SUBTITLES = {"srt": srt, "vtt": vtt}
FORMATS = ("jsonl", "txt", *SUBTITLES, "ctm")
TIMED = (*SUBTITLES, "ctm")  # formats that need the times of words


def line_of(form: str, utterance: Utterance, row: Row, recording: str = "") -> str:
    """Return the lines of an utterance for stdout, without the last line break. A row with an error has no lines.

    Args:
        form: the format, one of ``FORMATS``.
        utterance: the utterance.
        row: the row of the utterance.
        recording: the name of the recording, for the format ``ctm``.
    """
    if form == "jsonl":
        return json_line(row)
    if "error" in row:
        return ""
    if form == "txt":
        return f"{row['audio_filepath']}\t{row['pred_text']}"
    words = words_of_row(utterance, row)
    if form == "ctm":
        return ctm(recording, words).rstrip("\n")
    return SUBTITLES[form](cues(words)).rstrip("\n")


def rendered(form: str, utterances: Sequence[Utterance], rows: Sequence[Row], folder: bool) -> dict[str, str]:
    """Return the text of each file of the output.

    Args:
        form: the format, one of ``FORMATS``.
        utterances: all utterances of the input.
        rows: the row of each utterance.
        folder: the output is a folder with a file for each recording. A recording whose utterances all have errors has
            no file.

    Returns:
        The text by the path below the folder. The output that is one file has the path "".
    """
    if form in ("jsonl", "txt"):
        lines = (line_of(form, utterance, row) for utterance, row in zip(utterances, rows))
        return {"": "".join(line + "\n" for line in lines if line)}
    spoken = {
        name: [word for index in indices for word in words_of_row(utterances[index], rows[index])]
        for name, indices in recording_names.by_name(utterances).items()
        if any("error" not in rows[index] for index in indices)
    }
    if form == "ctm":
        return {"": "".join(ctm(name, words) for name, words in spoken.items())}
    texts = {f"{name}.{form}": SUBTITLES[form](cues(words)) for name, words in spoken.items()}
    return texts if folder else {"": next(iter(texts.values()), SUBTITLES[form]([]))}


def words_of_row(utterance: Utterance, row: Row) -> list[Word]:
    """Return the words of a row, with times from the start of the recording. A row with an error has no words.

    If the model gives no times, the words divide the time of the utterance in proportion to their lengths.
    """
    if "error" in row:
        return []
    times = row.get("timestamps", {})
    whole = {"segment": row["pred_text"], "start": 0.0, "end": utterance.duration}
    return words_of(times.get("word") or times.get("segment") or [whole], utterance.offset)


def ctm(name: str, words: Sequence[Word]) -> str:
    """Return the lines of a CTM file of NIST: recording, channel, start, duration, word. Times are in seconds."""
    recording = "_".join(name.encode(errors="backslashreplace").decode().split())
    return "".join(
        f"{recording} 1 {word.start:.3f} {max(word.end - word.start, 0.0):.3f} {word.text}\n" for word in words
    )
