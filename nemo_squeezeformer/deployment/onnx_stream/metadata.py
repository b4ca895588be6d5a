"""The format of the description of an exported model: JSON in the metadata of the ONNX file.

The key is ``nemo_squeezeformer``. A transducer has two files. The encoder's file contains the whole description.

``version``: An integer that increases with every change that older readers would misread. A reader refuses versions
    that it does not know.

``model``: Information for people: ``class``, ``att_context_size``, ``subsampling_factor``, ``weights``, and the
    versions of this package and of NeMo. ``weights`` is ``float32``, ``float16`` if the encoder computes in float16,
    or ``int8`` if the linear layers of the encoder are quantized.

``features``: How samples from -1 to 1 become feature frames. Frame t is centered on sample t * hop. Zeros precede the
    first sample and follow the last sample. n samples give n // hop frames. The fields are:

    - ``sample_rate``: in Hz.
    - ``hop``, ``n_fft``: in samples.
    - ``window``: the values of the window, which lies in the middle of n_fft.
    - ``preemphasis``: the factor p of x[i] - p * x[i - 1], or null. The first sample does not change.
    - ``magnitude_power``: the power of the magnitudes of the spectrum.
    - ``filterbank``: for each feature, the first FFT bin, and the weights from this bin on.
    - ``log``: ``add`` adds ``log_guard`` before the logarithm, ``clamp`` clamps to ``log_guard`` before the logarithm,
      and null means no logarithm.
    - ``normalize``: null, ``original``, or another normalization over the whole utterance. A stream needs null, because
      the whole utterance is unknown in a stream.

    If ``normalize`` is ``original``, the features are the features of the authors' TensorFlow release:

    - The samples are divided by the largest magnitude of the samples + 1e-9.
    - After preemphasis, mirror images of the samples precede the first sample and follow the last sample.
    - n samples give 1 + n // hop frames.
    - The logarithm is 10 log10. Every feature is at least the largest feature of the utterance minus 80.
    - The features get mean 0 and variance 1 over all features of the utterance. The divisor is the square root of the
      variance + 1e-9.

``inputs``: The names of two inputs: ``features`` (batch, features, time), and ``lengths`` (batch,), int64, which is the
    number of feature frames of each utterance.

``outputs``: The names of two outputs: ``encodings`` (batch, channels, time), and ``lengths`` (batch,), int64, which is
    the number of valid encodings of each utterance. With a CTC decoder, the encodings are log-probabilities
    (batch, time, tokens). For whole utterances with a CTC decoder, ``lengths`` is null.

``steps``: Null for a model of whole utterances. Otherwise step k, counted from 0, takes a window of ``window`` feature
    frames. The window begins at frame k * ``shift`` - ``before_start`` of the stream. Frames before the start of the
    stream may have any values. The length of a window is the number of frames in the window that are before the end of
    the stream. The length includes the frames before the start of the stream. The length is ``window`` until the stream
    ends. A step returns ``frames`` encoder frames, or fewer encoder frames at the end of the stream: a stream of n
    feature frames gives ceil(n / ``subsampling_factor``) encoder frames. Two more fields are:

    - ``latency_ms``: the time from the first sample of a step's output to the last sample for which the step waits.
    - ``nemo``: NeMo's ``streaming_cfg``, for programs that cut chunks with ``streaming_cfg``. In a pair of numbers, the
      first number is for the first chunk, and the second number is for all further chunks.

``caches``: The tensors that each step returns for the next step. The fields of each tensor are:

    - ``input``, ``output``: the name of the input and the name of the output.
    - ``shape``: the shape, with "batch" in place of the batch size.
    - ``dtype``: the dtype.
    - ``initial``: the value of all elements when a stream begins. To begin a new stream in a row of the batch, set the
      row to this value.

``decoder``: ``ctc`` or ``transducer``.

``blank``: The number of the blank token.

``tokens``: The text of each token.

``units``: ``characters`` or ``sentencepiece``. Join the texts of the tokens in both cases. For ``sentencepiece``,
    "\u2581" is a space, and consecutive tokens from <0x00> to <0xFF> are bytes of UTF-8.

``leading_spaces``: How many tokens at the beginning of the text lose a leading "\u2581": ``none``, ``one`` or ``all``.
    A token is at the beginning of the text while the text before the token is empty.

``transducer``: Null for CTC. Otherwise the fields are:

    - ``file``: the name of the graph with the decoder and the joint network, in the folder of the encoder's file.
    - ``inputs``, ``outputs``: the names of the inputs and the outputs of this graph.
    - ``states``: the states of the prediction network, in the format of ``caches``.
    - ``max_symbols``: the maximum number of tokens at a frame, or null for no limit.

    The first target is ``blank``. If the most likely token is blank, the next frame has the same target and the same
    states. Otherwise the token becomes the target, and the states become the returned states.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx_stream import metadata_check
from nemo_squeezeformer.deployment.onnx_stream.metadata_check import ORIGINAL as ORIGINAL
from nemo_squeezeformer.errors import UserError

KEY = "nemo_squeezeformer"
VERSION = 1


def transducer_files(path: Path) -> tuple[Path, Path]:
    """Return the paths of the two files of a transducer that is exported to ``path``.

    The first file contains the encoder. The second file contains the decoder and the joint network.
    """
    return path.with_name(f"encoder-{path.name}"), path.with_name(f"decoder_joint-{path.name}")  # NeMo's names


def parse(properties: dict[str, str], path: str | Path) -> dict[str, Any]:
    """Return the description from the metadata ``properties`` of the ONNX file at ``path``.

    Raises:
        UserError: The metadata contains no description, or the description has another version or a wrong field.
    """
    if KEY not in properties:
        raise UserError(
            f"the metadata of {path} has no {KEY!r}; export the model with `nemo-squeezeformer export`. For a "
            "transducer, give the encoder's file"
        )
    try:
        found = json.loads(properties[KEY])
    except (ValueError, RecursionError) as error:
        raise UserError(f"the metadata of {path} is not JSON ({error}); export the model again") from error
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise UserError(
            f"the metadata of {path} has version {ascii(version)[:80]}, not {VERSION}; export the model again"
        )
    metadata_check.check(found, f"the metadata of {path}")
    return found
