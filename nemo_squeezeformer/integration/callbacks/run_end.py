"""The text at the end of a training run: the best result, the files, and the command that shows the curves."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Any

from nemo.utils.callbacks import NeMoModelCheckpoint

from nemo_squeezeformer.integration.callbacks.best_weights import BestWeights
from nemo_squeezeformer.integration.callbacks.run_progress import shown


def words(writer: Any, best: BestWeights | None, log_dir: Path | None, settings: dict[str, Any]) -> str:
    """Return the text at the end of a run.

    Args:
        writer: the callback of the trainer that has written the checkpoints, or None.
        best: the callback that has written the .nemo file, or None if NeMo has written the file.
        log_dir: the folder of the run, or None.
        settings: the resolved settings of ``exp_manager``.
    """
    lines = []
    if isinstance(writer, NeMoModelCheckpoint):
        metric, path = str(writer.monitor), Path(writer._format_nemo_checkpoint_name())
        checkpoint, score = (best.best, best.score) if best else (writer.best_model_path, writer.best_model_score)
        if checkpoint and score is not None:
            lines.append(f"Best {metric}: {shown(metric, float(score))} ({Path(checkpoint).name})")
        if path.is_file():
            weights = "with these weights" if best and lines else "of the last step"
            lines.append(f"The model {weights} is {path}")
    if log_dir and settings.get("create_tensorboard_logger") and importlib.util.find_spec("tensorboard"):
        lines.append(f"This command shows the curves: tensorboard --logdir {shlex.quote(str(log_dir))}")
    if log_dir:
        lines.append(f"Logs and checkpoints are in {log_dir}")
    return "\n".join(lines)
