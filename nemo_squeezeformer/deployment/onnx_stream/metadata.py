"""What an exported model says of itself, as JSON in its ONNX metadata.

The key is ``nemo_squeezeformer``. ``version`` counts the changes after which older readers would go wrong; a reader
refuses those that it does not know. Of a transducer, the encoder's file has it all.

``model``: class, att_context_size, subsampling_factor, weights (``float32``, or ``int8`` in the encoder's linear
    layers), and the versions of this package and of NeMo; for people.

``features``: how samples in -1 ... 1 become feature frames. sample_rate; hop and n_fft in samples; window: its values,
    in the middle of n_fft; preemphasis: x[i] - preemphasis * x[i - 1], and the first sample as it is, or null;
    magnitude_power; filterbank: of each feature the first FFT bin and the weights from there on; log: ``add`` log_guard
    or ``clamp`` to it before the logarithm, or null for none; normalize: null, or what no stream knows in advance.
    Frame t is centred on sample t * hop, with zeros before the first sample and after the last; n samples make
    n // hop frames. Where normalize is ``original``, they are those of the authors' TensorFlow release: the samples are
    divided by the largest magnitude of them + 1e-9; before the first and after the last is, after preemphasis, their
    mirror image; n samples make 1 + n // hop frames; the logarithm is 10 log10, and no feature less than the greatest
    of the utterance by more than 80; of all its features mean and variance become 0 and 1, by division by the square
    root of the variance + 1e-9.

``inputs``: the names of ``features`` (batch, features, time) and of their ``lengths`` (batch,), int64.

``outputs``: the names of ``encodings`` (batch, channels, time), which with a CTC decoder are log-probabilities (batch,
    time, tokens), and of their ``lengths`` (batch,), int64, which are null for whole utterances with CTC.

``steps``: null for a model of whole utterances. Step k, from 0, takes ``window`` feature frames that begin with frame
    k * ``shift`` - ``before_start`` of the stream; those before the stream's start may have any values. Their length is
    how many of them lie before the stream's end, those before its start too: ``window`` in the midst of a stream. A
    step gives ``frames`` frames of output, or fewer at the end: n feature frames make ceil(n / ``subsampling_factor``).
    ``latency_ms``: from the first sample of what a step outputs to the last that it waits for. ``nemo``: NeMo's own
    streaming_cfg, for programs that cut chunks by it; [of the first chunk, of further ones].

``caches``: what each step hands to the next: names of ``input`` and ``output``, ``shape``, ``dtype``, and the
    ``initial`` value of all their elements. The batch is "batch" in shapes; a stream that begins anew in a row of the
    batch needs no more than that row set to the initial value.

``decoder``: ``ctc`` or ``transducer``. ``blank``: its token. ``tokens``: the text of each.

``units``: ``characters``, to be joined; or ``sentencepiece``, joined too, where "\u2581" is a space, and tokens <0x00>
    to <0xFF> in a row are UTF-8. ``leading_spaces``: how many tokens lose a "\u2581" at their beginning while there
    is no text before them: ``none``, ``one`` or ``all``.

``transducer``: null, or ``file``: the graph of decoder and joint network, beside the encoder's; the names of its
    ``inputs`` and ``outputs``; ``states``: of the prediction network, as ``caches``; ``max_symbols`` at one frame, null
    for no limit. The first target is ``blank``. Where the likeliest token is blank, the next frame has the same target
    and states; else the token is the target, and the states are those that came with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError

KEY = "nemo_squeezeformer"
VERSION = 1
ORIGINAL = "original"  # of ``normalize``


def transducer_files(path: Path) -> tuple[Path, Path]:
    """The encoder and, in one graph, decoder and joint network of a transducer that is exported to ``path``."""
    return path.with_name(f"encoder-{path.name}"), path.with_name(f"decoder_joint-{path.name}")  # NeMo's names


def parse(properties: dict[str, str], path: str | Path) -> dict[str, Any]:
    """The description among the metadata ``properties`` of the model at ``path``.

    Raises:
        UserError: there is none, or one of another version.
    """
    if KEY not in properties:
        raise UserError(
            f"{path} has no {KEY!r} in its metadata; export the model with `nemo-squeezeformer export`, and of a "
            "transducer give the encoder's file"
        )
    found = json.loads(properties[KEY])
    if found.get("version") != VERSION:
        raise UserError(f"{path} has metadata of version {found.get('version')}, not {VERSION}; export it again")
    return found
