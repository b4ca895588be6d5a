"""CTC models of equal size with random weights, as folders for sherpa-onnx."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.measuring.forms import CONFORMER, OURS, RATE_4X, RATE_8X

LETTERS = [" ", *"abcdefghijklmnopqrstuvwxyz'"]
CHANNELS_8X = {"subsampling_conv_channels": 256}  # in the recipes of both projects
ROTARY = {"self_attention_model": "rope"}
# The widths of FastConformer give the number of parameters of Squeezeformer, as nearly as possible.
SQUEEZEFORMER = {
    "xs": {"n_layers": 16, "d_model": 144, "n_heads": 4, "time_reduce_idx": 7, "time_recovery_idx": 15},
    "s": {"n_layers": 18, "d_model": 196, "n_heads": 4, "time_reduce_idx": 8, "time_recovery_idx": 17},
    "quick": {"n_layers": 3, "d_model": 16, "n_heads": 2, "time_reduce_idx": 1, "time_recovery_idx": 2},
}
FASTCONFORMER = {
    "xs": {"n_layers": 16, "d_model": 148, "n_heads": 4},
    "s": {"n_layers": 18, "d_model": 200, "n_heads": 4},
    "quick": {"n_layers": 3, "d_model": 16, "n_heads": 2},
}
ENCODERS: dict[str, tuple[str, dict[str, dict[str, int]], dict[str, Any]]] = {
    "Squeezeformer 4x": (OURS, SQUEEZEFORMER, RATE_4X | {"subsampling": "dw_striding"}),
    "Squeezeformer 8x": (OURS, SQUEEZEFORMER, RATE_8X | CHANNELS_8X),
    "Squeezeformer 4x rotary": (OURS, SQUEEZEFORMER, RATE_4X | {"subsampling": "dw_striding"} | ROTARY),
    "Squeezeformer 8x rotary": (OURS, SQUEEZEFORMER, RATE_8X | CHANNELS_8X | ROTARY),
    "FastConformer": (CONFORMER, FASTCONFORMER, RATE_8X | CHANNELS_8X),
}
PRECISIONS = ("float32", "int8")


def written(name: str, size: str, work: Path) -> tuple[dict[str, Path], int]:
    """Return the folder of each precision, and the number of parameters of the encoder.

    Both projects' graphs are quantized in the same way. A folder that exists is not written again.
    """
    folders = {precision: work / f"{size}-{name.replace(' ', '-')}-{precision}" for precision in PRECISIONS}
    note = folders["int8"] / "parameters.txt"
    if not note.exists():
        from nemo_squeezeformer.deployment.onnx.quantization import quantize

        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        model = build(name, size)
        parameters = sum(weights.numel() for weights in model.encoder.parameters())
        write(model, name, folders["float32"])
        shutil.copytree(folders["float32"], folders["int8"])
        quantize(folders["int8"] / "model.onnx")
        note.write_text(str(parameters))
    return folders, int(note.read_text())


def build(name: str, size: str) -> Any:
    """Return a character CTC model with random weights."""
    import torch
    from nemo.collections.asr.models import EncDecCTCModel
    from omegaconf import OmegaConf

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    target, dimensions, settings = ENCODERS[name]
    config = {
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "features": 80,
            "normalize": "per_feature",
            "window_size": 0.025,
        },
        "encoder": {"_target_": target, "feat_in": 80, **dimensions[size], **settings},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": None,
            "num_classes": len(LETTERS),
            "vocabulary": LETTERS,
        },
        "labels": LETTERS,
    }
    torch.manual_seed(0)
    return EncDecCTCModel(OmegaConf.create(config)).eval()


def write(model: Any, name: str, folder: Path) -> None:
    """Write the folder. NeMo's encoder is exported by NeMo's own export, with the metadata of sherpa-onnx."""
    from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
    from nemo_squeezeformer.deployment.runtimes.folder import write_folder
    from nemo_squeezeformer.deployment.runtimes.token_file import token_lines

    folder.parent.mkdir(parents=True, exist_ok=True)
    if ENCODERS[name][0] == OURS:
        write_folder("sherpa-onnx", model, folder, GraphSettings(streaming=False))
        return
    import onnx

    folder.mkdir()
    model.export(str(folder / "model.onnx"))
    graph = onnx.load(str(folder / "model.onnx"))
    metadata = {
        "model_type": "EncDecCTCModelBPE",
        "vocab_size": len(LETTERS),
        "subsampling_factor": model.encoder.subsampling_factor,
        "normalize_type": "per_feature",
    }
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=str(value))
    onnx.save(graph, str(folder / "model.onnx"))
    (folder / "tokens.txt").write_text(token_lines(LETTERS, "sherpa-onnx"), encoding="utf-8")
