"""The README of a folder for sherpa-onnx, with the command that runs the folder."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
from nemo_squeezeformer.deployment.runtimes.readme_file import readme
from nemo_squeezeformer.deployment.runtimes.sherpa_stream import Steps

HOP = 0.01  # seconds
# sherpa-onnx centers frame t on t * HOP + HOP / 2, and NeMo on t * HOP. After this silence, the times are equal.
LEAD = HOP / 2
CTC_FILES = {"model": "model.onnx", "tokens": "tokens.txt"}
TRANSDUCER_FILES = {
    "encoder": "encoder.onnx",
    "decoder": "decoder.onnx",
    "joiner": "joiner.onnx",
    "tokens": "tokens.txt",
}


def readme_of(model: Any, transducer: bool, settings: GraphSettings, features: int, steps: Steps | None) -> str:
    """Return the README of ``model``, which has this number of mel features."""
    files: dict[str, Any] = TRANSDUCER_FILES if transducer else CTC_FILES
    flags = {("nemo-ctc-model" if key == "model" else key): file for key, file in files.items()}
    offline_type = {"model_type": "nemo_transducer"} if transducer and steps is None else {}
    flags |= {key.replace("_", "-"): value for key, value in offline_type.items()}
    if offline_type:  # without this option, sherpa-onnx computes the features of transducers up to 7600 Hz
        flags |= {"high-freq": "0"}
    arguments = files | offline_type
    if features != 80:
        flags |= {"feat-dim": str(features)}
        arguments = arguments | {"feature_dim": features}
    if steps is not None:
        flags |= {"left-padding": f"{LEAD}", "right-padding": _silence(steps)}
    command = " ".join(
        [f"sherpa-onnx{'-offline' if steps is None else ''}", *(f"--{k}={v}" for k, v in flags.items()), "audio.wav"]
    )
    build = (
        f"from_{'transducer' if transducer else 'nemo_ctc'}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
    )
    form = f"{'offline' if steps is None else 'streaming'} {'transducer' if transducer else 'CTC'}, {settings.weights}"
    notes = "Run the commands in this folder after `pip install sherpa-onnx sherpa-onnx-bin`."
    if steps is not None:
        notes += f" sherpa-onnx decodes only complete chunks: end a stream with {_silence(steps)} seconds of silence."
    return readme("sherpa-onnx", model, form, notes, command, _python(build, steps))


def _python(build: str, steps: Steps | None) -> str:
    lines = ["import sherpa_onnx, soundfile"]
    if steps is None:
        lines += [
            f"recognizer = sherpa_onnx.OfflineRecognizer.{build}",
            "stream = recognizer.create_stream()",
            'samples, rate = soundfile.read("audio.wav", dtype="float32")',
            f"silence = [0.0] * int({LEAD} * rate)  # then the feature frames are at the times of NeMo",
            "stream.accept_waveform(rate, silence + samples.tolist())",
            "recognizer.decode_stream(stream)",
            "print(stream.result.text)",
        ]
    else:
        lines += [
            f"recognizer = sherpa_onnx.OnlineRecognizer.{build}",
            "stream = recognizer.create_stream()",
            'samples, rate = soundfile.read("audio.wav", dtype="float32")',
            f"stream.accept_waveform(rate, [0.0] * int({LEAD} * rate))  # then the frames are at the times of NeMo",
            "stream.accept_waveform(rate, samples)",
            f"stream.accept_waveform(rate, [0.0] * int({_silence(steps)} * rate))",
            "while recognizer.is_ready(stream):",
            "    recognizer.decode_stream(stream)",
            "print(recognizer.get_result(stream))",
        ]
    return "\n".join(lines)


def _silence(steps: Steps) -> str:
    """Return the seconds of silence after which sherpa-onnx has processed all frames before the silence."""
    return f"{(steps.given + steps.shift) * HOP:.2f}"
