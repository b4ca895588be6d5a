"""NVIDIA's released Squeezeformers by their names, in NeMo versions that list them no longer.

``register`` adds them to what ``EncDecCTCModelBPE`` lists, and with it ``ASRModel``; NeMo's ``from_pretrained``, its
``init_from_pretrained_model`` and its scripts know them then. NeMo's download writes into its cache directly: what an
interrupted one leaves is taken for the model ever after, and the reason of a failure is lost. These six are therefore
fetched by ``fetch``, into the place where NeMo looks.
"""

from __future__ import annotations

import sys
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import written_whole

NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/nemo"
CATALOG = "https://catalog.ngc.nvidia.com/orgs/nvidia/teams/nemo/models"
VERSION = "1.13.0"
SIZES = ("xsmall", "small", "small_medium", "medium", "medium_large", "large")
NAMES = tuple(f"stt_en_squeezeformer_ctc_{size}_ls" for size in SIZES)
ATTEMPTS = 3  # as NeMo's own: NGC does not answer every time


def location(name: str) -> str:
    """Where NVIDIA serves the ``.nemo`` file of this name."""
    return f"{NGC}/{name}/versions/{VERSION}/files/{name}.nemo"


def register(ctc_bpe_models: ModuleType) -> None:
    """Make NeMo list the six and fetch them safely, unless it lists them itself.

    Args:
        ctc_bpe_models: NeMo's module of that name.
    """
    model: Any = ctc_bpe_models.EncDecCTCModelBPE
    if set(NAMES) <= set(model.get_available_model_names()):
        return
    listed = model.list_available_models.__func__

    def list_available_models(cls: Any) -> list[Any]:
        # Description and location as in NeMo 2.7.3: its cache is named by their hash.
        released = [
            ctc_bpe_models.PretrainedModelInfo(
                pretrained_model_name=name,
                description=f"For details about this model, please visit {CATALOG}/{name}",
                location=location(name),
            )
            for name in NAMES
        ]
        return [*listed(cls), *released]

    list_available_models.__doc__ = listed.__doc__
    model.list_available_models = classmethod(list_available_models)

    common = sys.modules["nemo.core.classes.common"]
    download = common.maybe_download_from_cloud

    def maybe_download_from_cloud(
        url: str,
        filename: str,
        subfolder: str | None = None,
        cache_dir: Path | None = None,
        refresh_cache: bool = False,
    ) -> str:
        if cache_dir is not None and url + filename in map(location, NAMES):
            cached = Path(cache_dir) / (subfolder or "") / filename
            if refresh_cache or not cached.exists():
                fetch(url + filename, cached)
        return download(url, filename, subfolder=subfolder, cache_dir=cache_dir)

    common.maybe_download_from_cloud = maybe_download_from_cloud  # type: ignore[attr-defined]


def fetch(address: str, path: Path) -> None:
    """Download a ``.nemo`` file to ``path``: all of it or nothing, and what was there before is kept until then.

    Raises:
        UserError: it cannot be had, or what came is no whole archive.
    """
    from nemo.utils import logging

    reason: Exception | None = None
    for attempt in range(ATTEMPTS):
        logging.info(f"Downloading {address} to {path} (attempt {attempt + 1} of {ATTEMPTS})")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as part:
                # Of the ways to download, this one sees that the last bytes are missing.
                urllib.request.urlretrieve(address, part)
                with tarfile.open(part) as archive:
                    archive.getmembers()
            return
        except (OSError, HTTPException, tarfile.TarError) as error:  # URLError and ContentTooShortError are OSErrors
            reason = error
    raise UserError(
        f"{path.stem} could not be fetched from {address} ({type(reason).__name__}: {reason}). Download that file "
        f"where there is a network, then give its path to restore_from() or to the command, or put it at {path}, where "
        "from_pretrained() looks first"
    ) from reason
