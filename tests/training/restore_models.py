"""A process that restores saved models and says what they give.

It is run as ``python -m tests.training.restore_models JOBS.json OUTPUTS.pt``.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from nemo.core import ModelPT

import nemo_squeezeformer  # noqa: F401  before any model: restoring asks NeMo for our encoder
from tests.samples.model_types import model_type


def restored(job: dict[str, str]) -> dict[str, Any]:
    """A model's weights and outputs, or the traceback of what went wrong."""
    try:
        model = ModelPT.restore_from(job["saved"], map_location="cpu").eval()
        weights = {name: weight for name, weight in model.state_dict().items() if torch.is_tensor(weight)}
        output = model_type(job["recipe"], job["target"]).output(model, Path(job["folder"]))
    except Exception:
        return {"error": traceback.format_exc()}
    # Clones: NeMo hangs its types on tensors, which torch's safe loading refuses.
    plain = {name: value.clone() if torch.is_tensor(value) else value for name, value in output.items()}
    return {"weights": weights, "output": plain}


if __name__ == "__main__":
    jobs, outputs = map(Path, sys.argv[1:])
    torch.save({job["recipe"]: restored(job) for job in json.loads(jobs.read_text())}, outputs)
