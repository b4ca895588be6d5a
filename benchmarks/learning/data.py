"""The data of the bench: real speech of many speakers, spoken digits, and synthetic speech of open text.

    python -m benchmarks.learning.data SPEECH DIGITS

SPEECH and DIGITS are the folders of speechocean and of the connected digits. The synthetic speech has 20 hours and 300
voices. Dev and test have other voices and other phrases than train.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.learning.phrases import phrases
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.recordings import Recordings, rows

WORK = Path("build/learning")
SYNTHETIC = {"train": 44000, "dev": 400, "test": 400}  # numbers of utterances; an utterance has about 2 seconds
VOICES = 300
# The parts of the real speech, and the manifests of each part.
REAL = {
    "speechocean": {"train": ["train.jsonl", "extra.jsonl"], "dev": ["dev.jsonl"]},
    "digits": {
        "train": ["connected_train.jsonl", "single_train.jsonl"],
        "dev": ["connected_dev.jsonl"],
        "test": ["connected_test.jsonl"],  # an unseen speaker
    },
}


class Data(NamedTuple):
    """The data of trainings.

    Attributes:
        folder: a folder with manifests.
        vocabulary: number of sub-words.
        words: a description for the page of results.
    """

    folder: str
    vocabulary: int
    words: str


SYNTHETIC_WORDS = (
    f"Synthetic speech of open text, with {SYNTHETIC['train']:,} phrases in train, and {VOICES} voices in all parts "
    "together. The phrases and the voices of dev and test are not in the training data."
)
DATA = {
    "digits": Data(
        "digits", 27, "Digits of four speakers, alone and in sequences. The test speaker is another speaker."
    ),
    "speechocean": Data(
        "speechocean", 128, "English sentences of many speakers, 4.7 hours in train. Dev has other speakers."
    ),
    "synthetic": Data("synthetic", 128, SYNTHETIC_WORDS),
    "synthetic-512": Data(
        "synthetic",
        512,
        "The data of synthetic, for encoders with 80 ms per frame. With 128 sub-words, some utterances have more "
        "tokens than frames of 80 ms.",
    ),
}


def recordings(data: Data, work: Path = WORK) -> Recordings:
    """Return the manifests of the data."""
    folder = work / data.folder
    tests = {"test": folder / "test.jsonl"} if (folder / "test.jsonl").exists() else {}
    return Recordings([folder / "train.jsonl"], folder / "dev.jsonl", tests)


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.learning.data", __doc__)
    parser.add_argument("speechocean", type=Path, metavar="SPEECH")
    parser.add_argument("digits", type=Path, metavar="DIGITS")
    parser.add_argument("--work", type=Path, default=WORK)
    args = parser.parse_args(argv)
    for source, name in ((args.speechocean, "speechocean"), (args.digits, "digits")):
        for part, manifests in REAL[name].items():
            decode([source / manifest for manifest in manifests], args.work / name, part)
    synthesize(args.work)


def decode(manifests: list[Path], folder: Path, part: str) -> None:
    """Write the recordings of the manifests as wav, because decoding Opus in each epoch takes time.

    The new manifest is ``folder / part.jsonl``.
    """
    import soundfile

    written = []
    for number, row in enumerate(row for manifest in manifests for row in rows(manifest)):
        path = Path("audio") / part / f"{number:05d}.wav"
        samples, rate = soundfile.read(row["audio_filepath"], dtype="int16")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, samples, rate)
        written.append({"audio_filepath": str(path), "duration": len(samples) / rate, "text": row["text"]})
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))


def synthesize(work: Path) -> None:
    """Make the synthetic speech with the script of this project."""
    text = work / "phrases.txt"
    text.write_text("\n".join(phrases()) + "\n")
    sizes = [word for part, size in SYNTHETIC.items() for word in (f"--{part}", str(size))]
    script = Path(__file__).parents[2] / "scripts" / "make_speech.py"
    command = [sys.executable, str(script), "--output", str(work / "synthetic"), "--voices", str(VOICES), *sizes]
    subprocess.run([*command, "--format", "wav", "--text", str(text)], check=True)


if __name__ == "__main__":
    main()
