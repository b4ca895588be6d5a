"""A check that a run which resumes does not begin anew beside an interrupted run with the same name.

NeMo writes a run without ``resume_if_exists`` into a folder with the date. With ``resume_if_exists``, NeMo looks for
checkpoints in the folder above, finds none, and trains from the beginning.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.settings import value

FOLDER = "nemo_experiments"  # NeMo's default of exp_manager.exp_dir


def check(cfg: Any) -> None:
    """Check that a run which resumes finds its checkpoints.

    Raises:
        UserError: the run resumes and has no checkpoint, but a run with the same name in a folder with another version
            has checkpoints. The message names the folder, and the settings for both choices.
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
