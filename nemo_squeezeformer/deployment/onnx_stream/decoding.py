"""Greedy decoding of a stream: the tokens of CTC and of transducers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nemo_squeezeformer.deployment.onnx_stream.session import initial, open_session


def build_decoder(metadata: dict[str, Any], encoder: Path) -> CTC | Transducer:
    """The decoder that goes with the model at ``encoder``, at the beginning of a stream."""
    if metadata["decoder"] == "ctc":
        return CTC(metadata["blank"])
    return Transducer(metadata["blank"], metadata["transducer"], encoder.parent)


class CTC:
    """The likeliest token of each frame, but for repetitions and blanks."""

    def __init__(self, blank: int):
        self.blank = self.last = blank

    def step(self, log_probs: np.ndarray) -> list[int]:
        """(T, V) of the next frames -> the tokens that they add"""
        tokens = []
        for token in log_probs.argmax(axis=-1).tolist():
            if token not in (self.last, self.blank):
                tokens.append(token)
            self.last = token
        return tokens


class Transducer:
    """The likeliest token at each place, by the graph of decoder and joint network."""

    def __init__(self, blank: int, settings: dict[str, Any], folder: Path):
        self.session = open_session(folder / settings["file"])
        self.blank, self.settings = blank, settings
        self.target, self.states = blank, initial(settings["states"], 1)

    def step(self, encodings: np.ndarray) -> list[int]:
        """(D, T) of the next frames -> the tokens that they add"""
        tokens: list[int] = []
        at = symbols = 0  # frame, and tokens at that frame
        while at < encodings.shape[1]:
            best, states = self._best(encodings[:, at:])
            (found,) = np.nonzero(best != self.blank)
            if not len(found):
                break
            symbols = 0 if found[0] else symbols
            at += int(found[0])
            self.target, self.states = int(best[found[0]]), states
            tokens.append(self.target)
            symbols += 1
            if symbols == self.settings["max_symbols"]:
                at, symbols = at + 1, 0
        return tokens

    def _best(self, encodings: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(D, T) -> (T,) the token at each frame if all before it are blanks, and the states after the last target"""
        inputs, states = self.settings["inputs"], self.settings["states"]
        given = {
            inputs["encodings"]: encodings[None],
            inputs["targets"]: np.array([[self.target]], dtype=np.int32),
            inputs["target_lengths"]: np.array([1], dtype=np.int32),
            **self.states,
        }
        logits, *after = self.session.run(
            [self.settings["outputs"]["logits"], *(state["output"] for state in states)], given
        )  # (1, T, 1, V)
        return logits[0, :, 0].argmax(axis=-1), {state["input"]: value for state, value in zip(states, after)}
