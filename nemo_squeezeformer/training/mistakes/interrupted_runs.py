"""A check that a resumed run does not start from the beginning although an interrupted run has checkpoints.

Without ``resume_if_exists``, NeMo writes a run into a folder whose name is the date. With ``resume_if_exists``, NeMo
looks for checkpoints in the parent folder. It finds no checkpoint there, and trains from the beginning.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.settings import value

FOLDER = "nemo_experiments"  # NeMo's default of exp_manager.exp_dir


def check(cfg: Any) -> None:
    """Check that a resumed run finds its checkpoints.

    Raises:
        UserError: the resumed run has no checkpoint, but a run with the same name and another ``exp_manager.version``
            has checkpoints. The message names the folder of this run, the setting that continues it, and the setting
            that starts a new run.
    """
    settings = value(cfg, "exp_manager", {})
    given = ("explicit_log_dir", "version", "resume_from_checkpoint")
    parameters = settings.get("checkpoint_callback_params") or {}
    if not settings.get("resume_if_exists") or any(settings.get(key) for key in given) or parameters.get("dirpath"):
        return
    if os.environ.get("NEMO_EXPM_VERSION"):
        return
    folder = Path(settings.get("exp_dir") or FOLDER, settings.get("name") or "default")
    if any(folder.glob("checkpoints/*.ckpt")):
        return
    others = {path.parent.parent for path in folder.glob("*/checkpoints/*.ckpt")}
    if not others:
        return
    newest = max(others, key=lambda run: max(path.stat().st_mtime for path in run.glob("checkpoints/*.ckpt")))
    raise UserError(
        f"exp_manager.resume_if_exists=true finds no checkpoint in {folder / 'checkpoints'}, but the run in {newest} "
        f"has checkpoints; to continue this run, add ++exp_manager.version={newest.name}; to start a new run, add "
        "++exp_manager.version=NAME with a new name"
    )
