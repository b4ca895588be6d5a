"""A program that restores saved models and writes their outputs.

Run it with ``python -m tests.training.restore_models JOBS.json OUTPUTS.pt``.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from nemo.core import ModelPT

import nemo_squeezeformer  # noqa: F401  NeMo needs the registered encoder to restore models
from tests.samples.model_types import model_type


def restored(job: dict[str, str]) -> dict[str, Any]:
    """Return the weights and outputs of a model, or the traceback of an error."""
    try:
        model = ModelPT.restore_from(job["saved"], map_location="cpu").eval()
        weights = {name: weight for name, weight in model.state_dict().items() if torch.is_tensor(weight)}
        output = model_type(job["recipe"], job["target"]).output(model, Path(job["folder"]))
    except Exception:
        return {"error": traceback.format_exc()}
    # NeMo attaches its types to tensors, and torch's safe loading refuses them. A clone has no NeMo types.
    plain = {name: value.clone() if torch.is_tensor(value) else value for name, value in output.items()}
    return {"weights": weights, "output": plain}


if __name__ == "__main__":
    jobs, outputs = map(Path, sys.argv[1:])
    torch.save({job["recipe"]: restored(job) for job in json.loads(jobs.read_text())}, outputs)
