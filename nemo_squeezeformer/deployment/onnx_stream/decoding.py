"""The greedy decoding of a stream or of a whole utterance, for CTC models and transducers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.session import initial, open_session, run
from nemo_squeezeformer.errors import UserError

MOST_SYMBOLS = 1000  # tokens at one frame if the model has no limit; a damaged network would continue forever
AHEAD = 32  # frames whose next token is computed at once; with all frames, the time grows with the square of the length
Timed = tuple[int, int]  # a token, and its encoder frame from the start of the stream


def build_decoder(metadata: dict[str, Any], encoder: Path) -> CTC | Transducer:
    """Return the decoder of the model at the path ``encoder``, at the beginning of a stream."""
    if metadata["decoder"] == "ctc":
        return CTC(metadata["blank"])
    return Transducer(metadata["blank"], metadata["transducer"], encoder.parent)


class CTC:
    """Greedy CTC decoding: the most likely token of each frame, without repetitions and blanks.

    Attributes:
        frames: Number of frames so far.
    """

    def __init__(self, blank: int):
        self.blank = self.last = blank
        self.frames = 0

    def step(self, log_probs: np.ndarray) -> list[Timed]:
        """Return the tokens of the next frames from the log-probabilities (T, V) of these frames."""
        tokens = []
        for at, token in enumerate(log_probs.argmax(axis=-1).tolist(), self.frames):
            if token not in (self.last, self.blank):
                tokens.append((token, at))
            self.last = token
        self.frames += len(log_probs)
        return tokens


class Transducer:
    """Greedy transducer decoding, with the ONNX graph of the decoder and the joint network.

    Attributes:
        frames: Number of frames so far.
    """

    def __init__(self, blank: int, settings: dict[str, Any], folder: Path):
        self.session = open_session(folder / settings["file"])
        self.blank, self.settings = blank, settings
        self.target, self.states = blank, initial(settings["states"], 1)
        self.frames = 0

    def step(self, encodings: np.ndarray) -> list[Timed]:
        """Return the tokens of the next frames from the encodings (D, T) of these frames."""
        tokens: list[Timed] = []
        at = symbols = 0  # number of the frame, and number of tokens at this frame
        while at < encodings.shape[1]:
            best, states = self._best(encodings[:, at : at + AHEAD])
            (found,) = np.nonzero(best != self.blank)
            if not len(found):
                at, symbols = at + len(best), 0
                continue
            symbols = 0 if found[0] else symbols
            at += int(found[0])
            self.target, self.states = int(best[found[0]]), states
            tokens.append((self.target, self.frames + at))
            symbols += 1
            if symbols > MOST_SYMBOLS:
                raise UserError(
                    f"the network has more than {MOST_SYMBOLS} tokens at one frame; export the model with a "
                    "decoding.greedy.max_symbols"
                )
            if symbols == self.settings["max_symbols"]:
                at, symbols = at + 1, 0
        self.frames += encodings.shape[1]
        return tokens

    def _best(self, encodings: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the most likely token of each frame, (D, T) -> (T,), and the states of the decoder after the target.

        The token of a frame assumes that the tokens of all earlier frames are blank.
        """
        inputs, states = self.settings["inputs"], self.settings["states"]
        given = {
            inputs["encodings"]: encodings[None],
            inputs["targets"]: np.array([[self.target]], dtype=np.int32),
            inputs["target_lengths"]: np.array([1], dtype=np.int32),
            **self.states,
        }
        logits, *after = run(
            self.session, [self.settings["outputs"]["logits"], *(state["output"] for state in states)], given
        )  # (1, T, 1, V)
        return logits[0, :, 0].argmax(axis=-1), {state["input"]: value for state, value in zip(states, after)}
