"""Greedy CTC and transducer decoding of streams. The cost of each chunk does not grow with the length of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis


Timed = tuple[int, int]  # a token, and its encoder frame from the start of the stream


class StreamDecoder(Protocol):
    """The interface of a decoder for ``Streams``.

    ``frames`` is the number of encoder frames of each stream so far.
    """

    frames: list[int]

    def open(self, slot: int) -> None:
        """Begin a new stream in ``slot``."""

    def decode(self, slots: Sequence[int], encoded: Tensor, lengths: Tensor) -> list[list[Timed]]:
        """Return the new tokens of each stream with their frames.

        Args:
            slots: the slots of the B streams.
            encoded: the encodings (B, D, T) of the next chunk of each stream.
            lengths: the number (B,) of valid frames of each chunk.
        """

    def write(self, tokens: list[int]) -> str:
        """Return the text of ``tokens``."""


class CTCStream:
    """Greedy CTC decoding: the most probable token of each frame, with repetitions and blanks removed.

    A token that continues from one chunk into the next chunk is one token.
    """

    def __init__(self, decoder: Any, decoding: Any, slots: int):
        self.decoder, self.blank = decoder, decoding.blank_id
        self.write = decoding.decode_tokens_to_str_with_strip_punctuation
        self.last, self.frames = [self.blank] * slots, [0] * slots

    def open(self, slot: int) -> None:
        self.last[slot], self.frames[slot] = self.blank, 0

    def decode(self, slots: Sequence[int], encoded: Tensor, lengths: Tensor) -> list[list[Timed]]:
        best = self.decoder(encoder_output=encoded).argmax(dim=-1).tolist()  # (B, T)
        added = []
        for slot, row, length in zip(slots, best, lengths.tolist()):
            row = [self.last[slot], *row[:length]]
            self.last[slot] = row[-1]
            new = enumerate(zip(row, row[1:]), self.frames[slot])
            added.append([(token, at) for at, (before, token) in new if token not in (before, self.blank)])
            self.frames[slot] += length
        return added


class TransducerStream:
    """NeMo's greedy transducer decoding. Each chunk uses the decoder state and the last token of the previous chunk."""

    def __init__(self, decoding: Any, slots: int):
        self.decoding = decoding
        self.write = decoding.decode_tokens_to_str_with_strip_punctuation
        self.partial: list[Hypothesis | None] = [None] * slots
        self.frames = [0] * slots
        # NeMo's loop over labels counts frames from the start of the stream, and its other loop from the last chunk.
        self.from_the_start = getattr(decoding.decoding, "decoding_computer", None) is not None

    def open(self, slot: int) -> None:
        self.partial[slot], self.frames[slot] = None, 0

    def decode(self, slots: Sequence[int], encoded: Tensor, lengths: Tensor) -> list[list[Timed]]:
        from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

        (found,) = self.decoding.decoding(
            encoder_output=encoded,
            encoded_lengths=lengths,
            partial_hypotheses=[self.partial[slot] for slot in slots],
        )
        added = []
        for slot, hypothesis, length in zip(slots, found, lengths.tolist()):
            before = 0 if self.from_the_start else self.frames[slot]
            frames = [before + int(frame) for frame in hypothesis.timestamp]
            added.append(list(zip(map(int, hypothesis.y_sequence), frames)))
            self.frames[slot] += length
            # Keep only the fields that the next chunk needs. NeMo's own hypothesis grows with the stream, and decoding
            # copies the hypothesis for each chunk.
            self.partial[slot] = Hypothesis(
                score=0.0,
                y_sequence=torch.zeros(0, dtype=torch.long),
                timestamp=torch.zeros(0, dtype=torch.long),
                dec_state=hypothesis.dec_state,
                last_token=hypothesis.last_token,
            )
        return added


def decode_greedily(model: Any) -> None:
    """Set a transducer to greedy decoding.

    Greedy decoding can continue from chunk to chunk. A beam search cannot continue from chunk to chunk.
    """
    from omegaconf import OmegaConf, open_dict

    if not _is_transducer(model) or hasattr(model, "prompt_kernel"):
        return
    config = model.cfg.decoding.copy()
    with open_dict(config):
        config.strategy = "greedy_batch" if model.decoder.blank_as_pad else "greedy"
        # NeMo's other loop for batches, the loop over frames, cannot continue from a partial hypothesis.
        OmegaConf.update(config, "greedy.loop_labels", True, force_add=True)
    model.change_decoding_strategy(config, verbose=False)


def stream_decoder(model: Any, slots: int) -> StreamDecoder:
    """Return the stream decoder for the decoder of ``model``. For a transducer call ``decode_greedily`` first.

    Raises:
        ValueError: the model has neither a CTC nor a transducer decoder, or the model needs a prompt.
    """
    from nemo.collections.asr.parts.submodules.ctc_decoding import AbstractCTCDecoding

    if hasattr(model, "prompt_kernel"):
        raise ValueError(
            f"a model of class {type(model).__name__} needs a prompt, and streaming does not support prompts"
        )
    if _is_transducer(model):
        return TransducerStream(model.decoding, slots)
    if hasattr(model, "ctc_decoder"):
        return CTCStream(model.ctc_decoder, model.ctc_decoding, slots)
    if isinstance(getattr(model, "decoding", None), AbstractCTCDecoding):
        return CTCStream(model.decoder, model.decoding, slots)
    raise ValueError(f"a model of class {type(model).__name__} has neither a CTC nor a transducer decoder")


def _is_transducer(model: Any) -> bool:
    """Return True if ``model`` decodes with a transducer. A hybrid model decodes with the chosen decoder."""
    return hasattr(model, "joint") and getattr(model, "cur_decoder", "rnnt") == "rnnt"
