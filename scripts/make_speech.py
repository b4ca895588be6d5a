"""Create a data set of synthetic speech with eSpeak NG: 16 kHz audio and NeMo manifests.

The voices for validation and for testing are not used for training.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from espeak import SAMPLE_RATE as ESPEAK_RATE
from espeak import Synthesiser, Voice
from tqdm import tqdm

from nemo_squeezeformer.errors import UserError

SAMPLE_RATE = 16000
ACCENTS = ["en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"]
# eSpeak's voice variants that sound like a person, without robots, whispers and echoes. The variant Reed is missing,
# because the breath noise of Reed comes from rand() of the C library, which eSpeak's seed does not control.
# fmt: off
VARIANTS = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex", "Andrea", "Andy",
    "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee", "Mario", "Michael", "Mike",
    "Nguyen", "adam", "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "david", "ed",
    "edward", "grandma", "grandpa", "gustave", "ian", "iven", "john", "klatt", "linda", "marcelo", "max",
    "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby",
    "steph", "travis", "victor", "zac",
]
# fmt: on
MOST_VOICES = 6 * len(ACCENTS) * (len(VARIANTS) // 6)  # dev and test have a sixth of the variants each

ROOMS = ["kitchen", "bedroom", "garden", "office", "hall"]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DEVICES = {
    "turn on": ["light", "lamp", "heater", "fan", "radio"],
    "turn off": ["light", "lamp", "heater", "fan", "radio"],
    "dim": ["light", "lamp"],
    "open": ["door", "window", "gate"],
    "close": ["door", "window", "gate"],
}


def draw_sentence(rng: np.random.Generator) -> str:
    """Draw a sentence from 37 words: a smart-home command (about 10,000 exist) or a number to call (111,000 exist)."""

    def one_of(choices: list[str]) -> str:
        return choices[rng.integers(len(choices))]

    if rng.random() < 0.25:
        return " ".join(["call", *(one_of(DIGITS) for _ in range(rng.integers(3, 6)))])
    verb = one_of(list(DEVICES))
    digits = [one_of(DIGITS), one_of(DIGITS)]
    moment = one_of(["", " now", " please", f" in {digits[0]} minutes", f" at {digits[0]} {digits[1]}"])
    return f"{verb} the {one_of(ROOMS)} {one_of(DEVICES[verb])}{moment}"


def draw_texts(sizes: dict[str, int], rng: np.random.Generator) -> dict[str, list[str]]:
    """Draw the sentences of each part from the 37 words, in the order of the parts in ``sizes``.

    A sentence can occur several times in a part, but not in two parts.
    """
    taken: set[str] = set()
    texts: dict[str, list[str]] = {}
    for part, size in sizes.items():
        texts[part] = []
        while len(texts[part]) < size:
            text = draw_sentence(rng)
            if text not in taken:
                texts[part].append(text)
        taken.update(texts[part])
    return texts


def choose_texts(sizes: dict[str, int], file: Path, rng: np.random.Generator) -> dict[str, list[str]]:
    """Choose the sentences of each part from the lines of a text file. No sentence occurs twice.

    Raises:
        UserError: the file cannot be read, or has too few different lines.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the sentences of {file} ({error})") from None
    sentences = [line for line in dict.fromkeys(map(str.strip, lines)) if line]
    if len(sentences) < sum(sizes.values()):
        raise UserError(
            f"{file} has {len(sentences)} different sentences, but {sum(sizes.values())} utterances are asked for; "
            "add sentences, or ask for fewer utterances"
        )
    order = iter(rng.permutation(len(sentences)))
    return {part: [sentences[next(order)] for _ in range(size)] for part, size in sizes.items()}


def draw_voices(number: int, rng: np.random.Generator) -> dict[str, list[Voice]]:
    """Draw the voices: one sixth for dev, one sixth for test, and the remaining voices for train.

    A variant (vocal tract) occurs in only one part.
    """
    variants = [VARIANTS[i] for i in rng.permutation(len(VARIANTS))]
    held_out, held_out_variants = max(1, number // 6), len(VARIANTS) // 6
    shares = {
        "dev": (held_out, variants[:held_out_variants]),
        "test": (held_out, variants[held_out_variants : 2 * held_out_variants]),
        "train": (number - 2 * held_out, variants[2 * held_out_variants :]),
    }
    voices = {}
    for part, (size, own) in shares.items():
        pairs = [
            (ACCENTS[(lap + i) % len(ACCENTS)], variant) for lap in range(len(ACCENTS)) for i, variant in enumerate(own)
        ]
        voices[part] = [
            Voice(accent, variant, pitch=int(rng.integers(25, 76)), rate=int(rng.integers(140, 191)))
            for accent, variant in pairs[:size]
        ]
    return voices


def record(samples: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Simulate a recording of eSpeak's samples with a microphone.

    The level, the noise floor and the silences are random. Therefore they do not identify a voice or a sentence.

    Returns:
        The int16 samples at 16 kHz, and the seconds of silence before the speech.
    """
    import soxr

    speech = soxr.resample(samples.astype(np.float32) / 32768, ESPEAK_RATE, SAMPLE_RATE)
    before, after = (int(seconds * SAMPLE_RATE) for seconds in rng.uniform(0.05, 0.3, size=2))
    speech = np.pad(speech, (before, after))
    speech *= 0.9 * 10 ** (rng.uniform(-12, 0) / 20) / max(np.abs(speech).max(), 1e-3)
    noise_level = np.sqrt(np.mean(speech**2)) * 10 ** (-rng.uniform(20, 40) / 20)
    speech = speech + noise_level * rng.standard_normal(len(speech))
    return (np.clip(speech, -1, 1) * 32767).astype(np.int16), before / SAMPLE_RATE


def word_spans(text: str, events: list[tuple[int, float]], offset: float, end: float) -> list[dict[str, Any]]:
    """Return a list of the spoken words, each with the start and the end in seconds.

    A pair of words that eSpeak speaks as one word, for example "on the", is one entry.
    """
    bounds = [*events, (len(text), end)]
    return [
        {"word": text[at:after].strip(), "start": round(offset + start, 3), "end": round(offset + stop, 3)}
        for (at, start), (after, stop) in pairwise(bounds)
    ]


def make_speech(
    output: Path, sizes: dict[str, int], voices: int, seed: int, extension: str = "flac", sentences: Path | None = None
) -> dict[str, Path]:
    """Write ``output/PART.jsonl`` and ``output/audio/PART/`` for train, dev and test, and return the manifests.

    Equal arguments and library versions give equal bytes. Audio paths are relative to the folder of the manifest. An
    entry of a manifest has audio_filepath, duration (seconds), text, speaker and words (with start and end in seconds).
    On a terminal the function shows a progress bar.

    Args:
        output: the folder to write to.
        sizes: number of utterances of each part.
        voices: number of voices of all parts.
        seed: random seed, 0 or more.
        extension: format of the audio files, flac or wav.
        sentences: a text file with a sentence in each line. By default, the sentences are commands for a smart home.

    Raises:
        UserError: a number is out of range, a package is missing, the folder is not writable, or ``sentences`` cannot
            be read or has too few lines.
    """
    for part, size in sizes.items():
        if size < 1:
            raise UserError(f"{size} utterances for {part}: expected at least 1")
    if not 3 <= voices <= MOST_VOICES:
        raise UserError(f"{voices} voices: expected 3 (one each for train, dev and test) to {MOST_VOICES}")
    if seed < 0:
        raise UserError(f"seed {seed}: expected 0 or more")
    rng = np.random.default_rng(seed)
    order = {part: sizes[part] for part in ("test", "dev", "train")}
    texts = choose_texts(order, sentences, rng) if sentences else draw_texts(order, rng)
    manifests = {}
    with tqdm(total=sum(sizes.values()), desc="speaking", unit="utterance", disable=None) as bar:
        for number, (part, part_voices) in enumerate(draw_voices(voices, rng).items()):
            entries: list[dict[str, Any]] = [{}] * sizes[part]
            for first, voice in enumerate(part_voices[: sizes[part]]):
                synthesiser = Synthesiser(voice, seed)
                for i in range(first, sizes[part], len(part_voices)):
                    path, audio_rng = f"audio/{part}/{i:05d}.{extension}", np.random.default_rng([seed, number, i])
                    entries[i] = speak(synthesiser, texts[part][i], output, path, audio_rng) | {"speaker": voice.name}
                    bar.update()
            manifests[part] = output / f"{part}.jsonl"
            manifests[part].write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return manifests


def speak(synthesiser: Synthesiser, text: str, folder: Path, path: str, rng: np.random.Generator) -> dict[str, Any]:
    """Write one utterance to ``folder / path``, and return the manifest entry of the utterance without the speaker."""
    try:
        import soundfile
        import soxr  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; run: pip install soxr soundfile") from None
    samples, events = synthesiser.speak(text)
    audio, offset = record(samples, rng)
    try:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, audio, SAMPLE_RATE, subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"cannot write to the folder {folder} ({error}); choose another folder") from None
    return {
        "audio_filepath": path,
        "duration": round(len(audio) / SAMPLE_RATE, 4),
        "text": text,
        "words": word_spans(text, events, offset, end=len(samples) / ESPEAK_RATE),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder for manifests and audio")
    add("--train", type=int, default=2000, metavar="N", help="number of utterances for training")
    add(
        "--dev",
        type=int,
        default=100,
        metavar="N",
        help="number of utterances for validation, with other voices than train",
    )
    add(
        "--test",
        type=int,
        default=200,
        metavar="N",
        help="number of utterances for testing, with other voices than train and dev",
    )
    add(
        "--voices",
        type=int,
        default=60,
        metavar="N",
        help=f"number of voices, 3 to {MOST_VOICES}; two thirds of the voices are for training",
    )
    add("--seed", type=int, default=0, help="random seed; the same seed gives the same files")
    add("--format", choices=["flac", "wav"], default="flac", help="format of the audio files")
    add(
        "--text", type=Path, metavar="FILE", help="sentences, one in each line; without FILE: commands for a smart home"
    )
    args = parser.parse_args()
    sizes = {"train": args.train, "dev": args.dev, "test": args.test}
    try:
        manifests = make_speech(args.output, sizes, args.voices, args.seed, args.format, args.text)
    except UserError as error:
        parser.error(str(error))
    for manifest in manifests.values():
        entries = [json.loads(line) for line in manifest.read_text().splitlines()]
        minutes, speakers = sum(entry["duration"] for entry in entries) / 60, {entry["speaker"] for entry in entries}
        print(f"{manifest}: {len(entries)} utterances, {minutes:.1f} minutes, {len(speakers)} voices")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
