"""The text at the end of a training run: the best result, the files, and the command that shows the curves."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Any

from nemo_squeezeformer.integration.callbacks.best_weights import BestWeights
from nemo_squeezeformer.integration.callbacks.run_progress import shown


def words(best: BestWeights | None, log_dir: Path | None, settings: dict[str, Any]) -> str:
    """Return the text at the end of a run.

    Args:
        best: the callback that has written the .nemo file, or None.
        log_dir: the folder of the run, or None.
        settings: the resolved settings of ``exp_manager``.
    """
    lines = []
    if best is not None and best.best is not None and best.score is not None:
        metric = str(best.writer.monitor)
        lines.append(f"Best {metric}: {shown(metric, best.score)} ({best.best.name})")
    if best is not None and best.path.is_file():
        lines.append(f"The model {'with these weights' if lines else 'of the last step'} is {best.path}")
    if settings.get("create_tensorboard_logger") and importlib.util.find_spec("tensorboard"):
        lines.append(f"This command shows the curves: tensorboard --logdir {shlex.quote(str(log_dir))}")
    lines.append(f"Logs and checkpoints are in {log_dir}")
    return "\n".join(lines)
