"""The speech synthesizer of eSpeak NG, called through the C library of eSpeak NG."""

import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from nemo_squeezeformer.errors import UserError

SAMPLE_RATE = 22050
_RETRIEVAL_SYNCHRONOUS, _DONT_EXIT, _UTF8, _END_OF_LIST, _WORD = 2, 0x8000, 1, 0, 1
_RATE, _PITCH = 1, 3  # espeak_PARAMETER


class _Event(ctypes.Structure):
    """The struct espeak_EVENT of speak_lib.h. The field ``id`` is a union of 8 bytes."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_int64),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """A speaker: accent (language), variant (vocal tract), pitch (0 to 100) and rate (words per minute)."""

    accent: str
    variant: str
    pitch: int
    rate: int

    @property
    def name(self) -> str:
        return f"{self.accent}+{self.variant}-p{self.pitch}-r{self.rate}"


class Synthesiser:
    """A synthesizer with one voice. Equal voices, seeds and sentences give equal samples.

    eSpeak keeps the state of flutter and noise in global variables, which no function resets. An utterance would
    therefore depend on all earlier utterances of the process. For this reason each Synthesiser loads a separate copy of
    the library.

    Raises:
        UserError: eSpeak NG is not installed or does not start.
        ValueError: eSpeak NG does not have this voice.
    """

    _copies = count()

    def __init__(self, voice: Voice, seed: int) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("eSpeak NG is not installed; run: pip install espeakng-loader") from None
        source = Path(espeakng_loader.get_library_path())
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._library = ctypes.CDLL(str(shutil.copy(source, Path(folder) / f"{next(self._copies)}{source.name}")))
        data = str(espeakng_loader.get_data_path())
        rate = self._library.espeak_Initialize(_RETRIEVAL_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
        if rate != SAMPLE_RATE:  # eSpeak truncates a path that is too long for eSpeak's buffer
            raise UserError(
                f"eSpeak NG could not start with its data in {data} (espeak_Initialize gave {rate}); if this path has "
                "more than 130 characters, install espeakng-loader into a virtual environment with a shorter path"
            )
        self._callback = _Callback(self._receive)  # without a reference ctypes would free the callback
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        known = (Path(data) / "voices" / "!v" / voice.variant).is_file()  # eSpeak ignores an unknown variant
        if not known or self._library.espeak_SetVoiceByName(f"{voice.accent}+{voice.variant}".encode()):
            raise ValueError(f"eSpeak NG has no voice {voice.accent}+{voice.variant}")
        self._library.espeak_SetParameter(_RATE, voice.rate, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._samples: list[np.ndarray] = []
        self._words: list[tuple[int, float]] = []

    def _receive(self, samples: Any, number: int, events: Any) -> int:
        if samples and number:
            self._samples.append(np.ctypeslib.as_array(samples, (number,)).copy())
        for event in events:
            if event.type == _END_OF_LIST:
                break
            if event.type == _WORD:
                self._words.append((event.text_position - 1, event.sample / SAMPLE_RATE))
        return 0

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[int, float]]]:
        """Speak a text.

        eSpeak speaks some pairs of words, for example "of the", as one word. A pair of this kind has one event.

        Returns:
            The int16 samples at SAMPLE_RATE, and a list of word events. An event is the index of the first character of
            the word, and the start of the word in seconds.
        """
        self._samples, self._words = [], []
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
        if status or not self._samples:
            raise RuntimeError(f"eSpeak NG could not speak {text!r}: espeak_Synth gave {status}")
        return np.concatenate(self._samples), self._words
