r"""The accuracy of the same models in torch, in ONNX Runtime in float32, and in ONNX Runtime in int8.

    python -m benchmarks.onnx.accuracy DIGITS/connected_test_seen.jsonl MODEL.nemo... \
        > benchmarks/results/onnx_accuracy.md
    python -m benchmarks.onnx.accuracy DIGITS/connected_test.jsonl MODEL.nemo... \
        --calibrate DIGITS/connected_train.jsonl > benchmarks/results/onnx_calibration.md

With `--calibrate`, the program also measures int8 by calibration, and the time of all forms. Each model is exported for
whole utterances, in the same way as by `nemo-squeezeformer export`. In all cases NeMo computes the features and the
search of the decoder. Only the part between them differs. Errors are measured on the output of the graph. This output
is log-probabilities for CTC and encodings for a transducer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.measuring import recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import versions
from benchmarks.measuring.tables import head, line, timed
from benchmarks.measuring.timing import interleaved, quartiles
from benchmarks.onnx.errors import relative

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
TIME = "time per second of audio, ms"
COLUMNS = [
    "model",
    "runtime",
    "largest relative error",
    "relative RMS error",
    "changed texts",
    "WER, %",
    "size of the file, MB",
]


def features(model: Any, audio: Sequence[str]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the features `(1, F, T)` and the length `(1,)` of each recording."""
    import soundfile

    found = []
    for path in audio:
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        with torch.no_grad():
            x, lengths = model.preprocessor(input_signal=samples, length=torch.tensor([samples.size(1)]))
        found.append((x[:, :, : lengths.item()], lengths))
    return found


def in_torch(model: Any, transducer: bool) -> Forward:
    """Return a function that runs the encoder in torch. For CTC models it also runs the decoder."""

    def forward(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            encodings, _ = model.encoder(audio_signal=x, length=lengths)
            decoder = getattr(model, "ctc_decoder", model.decoder)
            return encodings if transducer else decoder(encoder_output=encodings)

    return forward


def in_onnx_runtime(path: Path) -> Forward:
    """Return a function that runs the graph at ``path`` in ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        first, *_ = session.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
        return torch.from_numpy(first)

    return forward


def text(model: Any, transducer: bool, output: torch.Tensor) -> str:
    """Return the text that NeMo's search finds in encodings `(1, D, T)` or log-probabilities `(1, T, V)`."""
    lengths = torch.tensor([output.size(2 if transducer else 1)])
    with torch.no_grad():
        if transducer:
            found = model.decoding.rnnt_decoder_predictions_tensor(encoder_output=output, encoded_lengths=lengths)
        else:
            decoding = getattr(model, "ctc_decoding", model.decoding)
            found = decoding.ctc_decoder_predictions_tensor(decoder_outputs=output, decoder_lengths=lengths)
    best = found[0] if isinstance(found, tuple) else found
    return getattr(best[0], "text", best[0])


def time_of(forms: dict[str, Forward], inputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, str]:
    """Return the processor time per second of audio of each form. The forms run alternately."""

    def all_recordings(forward: Forward) -> None:
        for x, lengths in inputs:
            forward(x, lengths)

    calls = {name: partial(all_recordings, forward) for name, forward in forms.items()}
    took = interleaved(calls, patience=8.0, fewest=5, most=15, clock=time.thread_time)
    seconds = sum(x.size(2) for x, _ in inputs) / 100
    return {name: timed([1e3 * value / seconds for value in quartiles(values)]) for name, values in took.items()}


def rows(
    path: Path, audio: Sequence[str], references: Sequence[str], folder: Path, calibration: Path | None
) -> list[list[str]]:
    """Return the rows of one model."""
    from nemo.collections.asr.metrics.wer import word_error_rate
    from nemo.collections.asr.models import ASRModel

    from nemo_squeezeformer.deployment.onnx import model_files

    files = {}
    whole = partial(model_files.GraphSettings, streaming=False)
    settings = {"float32": whole(), "int8": whole(weights="int8")}
    if calibration is not None:
        settings["int8 by calibration"] = whole(weights="int8", calibration=calibration)
    for form, setting in settings.items():  # export changes the model, so each export restores it from the file
        model = ASRModel.restore_from(str(path), map_location="cpu").eval()
        files[form] = model_files.export(model, folder / f"{path.stem}-{form}.onnx", setting)[0]
    model = ASRModel.restore_from(str(path), map_location="cpu").eval()
    transducer = hasattr(model, "joint")
    inputs = features(model, audio)
    forms = {"torch": in_torch(model, transducer)} | {
        f"ONNX Runtime, {form}": in_onnx_runtime(file) for form, file in files.items()
    }
    outputs = {name: [forward(x, lengths) for x, lengths in inputs] for name, forward in forms.items()}
    texts = {name: [text(model, transducer, one) for one in found] for name, found in outputs.items()}
    expected, of = outputs["torch"], texts["torch"]
    times = {} if calibration is None else time_of(forms, inputs)
    table = []
    for name, found in outputs.items():
        wer = 100 * word_error_rate(hypotheses=texts[name], references=list(references))
        differ = sum(a != b for a, b in zip(texts[name], of))
        errors = [f"{value:.1e}" for value in relative(found, expected)] if name != "torch" else ["", ""]
        size = (files[name.split(", ")[1]] if name != "torch" else path).stat().st_size / 1e6
        cells = [f"{path.stem}, {type(model).__name__}", name, *errors, str(differ), f"{wer:.2f}", f"{size:.1f}"]
        table.append([*cells, times[name]] if times else cells)
    return table


def main() -> None:
    parser = command_line("benchmarks.onnx.accuracy", __doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.nemo")
    parser.add_argument("--calibrate", type=Path, metavar="MANIFEST", help="measure int8 by calibration too")
    args = parser.parse_args()
    torch.set_num_threads(1)

    import onnxruntime
    from nemo.utils import logging as nemo_logging

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    nemo_logging.setLevel(logging.ERROR)
    spoken = recordings.rows(args.manifest)
    audio, references = ([row[key] for row in spoken] for key in ("audio_filepath", "text"))
    print("`python -m benchmarks.onnx.accuracy` makes this page.\n")
    print(f"{len(spoken)} whole recordings of `{args.manifest.name}`, {sum(row['duration'] for row in spoken):.0f} s.")
    print(f"{versions()}, ONNX Runtime {onnxruntime.__version__}.\n")
    if args.calibrate:
        print(f"Recordings for the calibration: `{args.calibrate.name}`. The time is processor time on one thread: the")
        print("median of alternate calls, with the quartiles in brackets.\n")
    print('The errors and the changed texts are relative to the rows "torch", in which PyTorch computes the encoder.\n')
    print(head([*COLUMNS, TIME] if args.calibrate else COLUMNS))
    for path in args.models:
        with TemporaryDirectory() as folder:
            for row in rows(path, audio, references, Path(folder), args.calibrate):
                print(line(row), flush=True)


if __name__ == "__main__":
    main()
