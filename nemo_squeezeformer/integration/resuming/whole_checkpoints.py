"""The newest complete checkpoint of a run that was killed. Incomplete files are moved into another folder.

A process that is killed while it saves leaves a part of a file, a marker of NeMo, two last checkpoints, or a part of a
.nemo file. NeMo refuses to resume from a folder with these files, or removes files.
"""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nemo.collections.asr.models  # noqa: F401  a checkpoint has the types of the configuration of its model
from lightning.pytorch import Trainer
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.exp_manager import get_log_dir

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import check_archive
from nemo_squeezeformer.integration.resuming.checkpoint_contents import DamagedCheckpoint, read_data

MARKER = NeMoModelCheckpoint.UNFINISHED_CHECKPOINT_SUFFIX
END_OF_ARCHIVE = 1024  # a tar file ends with 1024 zero bytes
WAITING = 1800.0  # in seconds; the main process first checks all audio files


def newest_of_run(trainer: Trainer, settings: Mapping[str, Any], moves: bool) -> Path | None:
    """Return the newest complete checkpoint of the run that ``exp_manager`` with these resolved settings resumes.

    Return None if the run does not resume, or if the checkpoints are not on a local disk. See ``newest``.
    """
    parameters = settings.get("checkpoint_callback_params") or {}
    if not settings.get("resume_if_exists") or "://" in str(parameters.get("dirpath")):
        return None
    given = {key: settings.get(key) for key in ("exp_dir", "name", "version", "explicit_log_dir")}
    dated = settings.get("use_datetime_version", True)
    with logging.temp_verbosity(logging.ERROR):  # exp_manager shows the same warnings
        log_dir, _, name, _ = get_log_dir(trainer, use_datetime_version=dated, resume_if_exists=True, **given)
    name = parameters.get("prefix") or name or settings.get("name") or "default"
    averages = bool((settings.get("ema") or {}).get("enable"))
    return newest(Path(parameters.get("dirpath") or Path(log_dir) / "checkpoints"), name, averages, moves)


def newest(folder: Path, name: str, averages: bool = False, moves: bool = True) -> Path | None:
    """Return the newest complete checkpoint in ``folder``, and prepare the folder for resuming.

    The newest checkpoint has the largest number of steps. The function moves incomplete files, older last
    checkpoints and older backups of the .nemo file into a folder beside ``folder``. It deletes only the markers
    of NeMo. Return None if ``folder`` has no complete checkpoint, or if it has folders: checkpoints of sharded weights
    are folders, and NeMo chooses from them.

    Args:
        folder: the folder of the checkpoints.
        name: name of the .nemo file, without the ending.
        averages: if True, a checkpoint needs the file with the moving averages of the weights.
        moves: if False, wait until another process has prepared the folder.

    Raises:
        UserError: a checkpoint contains objects that can run code, or no checkpoint has the moving averages that the
            settings need.
    """
    if not folder.is_dir() or any(path.is_dir() for path in folder.iterdir()):
        return None
    chosen, aside = _plan(folder, averages)
    aside += _archives(folder, name)
    if not moves:
        if aside:
            _wait_until_moved(aside)
            chosen, _ = _plan(folder, averages)
        return chosen
    beside = folder.with_name(f"{folder.name}{MARKER}")
    moved = [_move(path, beside) for path in aside]
    if restored := _restore_archive(folder, name):
        logging.warning(f"{restored} is the model of the previous save, because the last save was interrupted")
    for marker in folder.glob(f"*{MARKER}"):
        marker.unlink()
    if moved:
        names = ", ".join(path.name for path in moved)
        then = f"training continues from {chosen}" if chosen else "there is no complete checkpoint"
        logging.warning(f"Incomplete or superseded files are now in {beside} ({names}); {then}")
    return chosen


def _wait_until_moved(paths: list[Path]) -> None:
    """Wait until another process has moved the files, but at most ``WAITING`` seconds."""
    end = time.monotonic() + WAITING
    while any(path.exists() for path in paths) and time.monotonic() < end:
        time.sleep(0.1)


def is_whole(path: Path) -> bool:
    """Return True if every byte of a checkpoint is as it was written."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None  # compares the checksums
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError):
        return False


def _plan(folder: Path, averages: bool) -> tuple[Path | None, list[Path]]:
    """Return the checkpoint to resume from, and the files that are in the way."""
    found, bad = dict[Path, tuple[int, bool, float]](), list[Path]()
    for path in sorted(folder.glob("*.ckpt")):
        if _is_average(path):
            continue
        try:
            step = int(read_data(str(path), device="meta")["global_step"])
            found[path] = step, _is_last(path), path.stat().st_mtime
        except (DamagedCheckpoint, KeyError, TypeError, FileNotFoundError):
            bad.append(path)
    candidates = sorted(found, key=lambda path: found[path], reverse=True)
    complete = [path for path in candidates if not NeMoModelCheckpoint.is_checkpoint_unfinished(path)]
    if averages and complete and not any(average_of(path).exists() for path in complete):
        raise UserError(
            f"{complete[0]}: the run was trained without moving averages of the weights, and cannot continue with "
            "exp_manager.ema.enable=true; remove exp_manager.ema.enable, or choose another exp_manager.name"
        )
    chosen = None
    for path in candidates:
        whole = chosen is not None and not NeMoModelCheckpoint.is_checkpoint_unfinished(path)
        if not whole and not (
            (is_whole(path) or not zipfile.is_zipfile(path)) and (not averages or is_whole(average_of(path)))
        ):
            bad.append(path)
        elif chosen is None:
            chosen = path
        elif _is_last(path) or re.search(r"=-?(inf|nan)", path.name):
            bad.append(path)  # NeMo accepts one last checkpoint, and cannot read these values in the name of a file
    return chosen, [*bad, *_averages_without_checkpoint(folder, bad)]


def _averages_without_checkpoint(folder: Path, bad: list[Path]) -> Iterator[Path]:
    for path in folder.glob("*-EMA.ckpt"):
        checkpoint = path.with_name(f"{path.name.removesuffix('-EMA.ckpt')}.ckpt")
        if checkpoint in bad or not checkpoint.exists():
            yield path


def _archives(folder: Path, name: str) -> list[Path]:
    """Return the .nemo file if it is incomplete, or the backups that a complete .nemo file has superseded."""
    archive = folder / f"{name}.nemo"
    if not archive.exists():
        return []
    return _backups(folder, name) if _is_whole_archive(archive) else [archive]


def _restore_archive(folder: Path, name: str) -> Path | None:
    """Rename the last complete backup of the .nemo file if there is no .nemo file, and return the new path."""
    archive = folder / f"{name}.nemo"
    whole = [path for path in _backups(folder, name) if _is_whole_archive(path)]
    return None if archive.exists() or not whole else whole[-1].rename(archive)


def _backups(folder: Path, name: str) -> list[Path]:
    found = [path for path in folder.glob("*.nemo") if re.fullmatch(rf"{re.escape(name)}-v\d+\.nemo", path.name)]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def _is_whole_archive(path: Path) -> bool:
    try:
        check_archive(path)
        with path.open("rb") as file:
            file.seek(-END_OF_ARCHIVE, 2)
            return not any(file.read())
    except (UserError, OSError):
        return False


def _move(path: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    number, target = 1, folder / path.name
    while target.exists():
        number, target = number + 1, folder / f"{path.stem}-{number}{path.suffix}"
    return path.rename(target)


def _is_last(path: Path) -> bool:
    return path.stem.endswith("last")  # as NeMo looks for it


def _is_average(path: Path) -> bool:
    return path.stem.endswith("-EMA")


def average_of(path: Path) -> Path:
    """Return the file with the moving averages of the weights that belongs to a checkpoint."""
    return path.with_name(f"{path.stem}-EMA.ckpt")
