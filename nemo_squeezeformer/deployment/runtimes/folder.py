"""The writing of the folder for a runtime. The folder appears only when all files are complete."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings, check_export
from nemo_squeezeformer.files.outputs import written_whole


def write_folder(runtime: str, model: Any, folder: Path, settings: GraphSettings) -> list[Path]:
    """Write ``model`` to ``folder`` for a runtime, and return the paths of the files.

    After this call, ``model`` can neither be trained nor saved. An existing folder is replaced.

    Raises:
        UserError: The runtime cannot run the model, a package is missing, or the folder cannot be written.
    """
    written = module_of(runtime)
    check_export(model, settings)
    written.check(model, settings)
    with written_whole(folder) as new:
        new.mkdir()
        written.write(model, new, settings)
    return sorted(folder.iterdir())


def module_of(runtime: str) -> ModuleType:
    """Return the module that writes the folder for ``runtime``. The module has ``FILES``, ``check`` and ``write``."""
    from nemo_squeezeformer.deployment.runtimes import onnx_asr, sherpa_onnx

    return {"sherpa-onnx": sherpa_onnx, "onnx-asr": onnx_asr}[runtime]
