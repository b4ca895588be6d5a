"""NVIDIA's released Squeezeformer models by name, for NeMo versions that no longer list these models.

``register`` adds the models to the lists of ``EncDecCTCModelBPE`` and ``ASRModel``. NeMo's ``from_pretrained``,
``init_from_pretrained_model`` and scripts then find the models. ``fetch`` downloads these six models into NeMo's cache
and replaces NeMo's own download. NeMo's own download writes directly into the cache. After an interrupted download,
NeMo would use the partial file as the model. After a failed download, NeMo does not show the reason.
"""

from __future__ import annotations

import sys
import tarfile
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import ContentTooShortError

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import written_whole

NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/nemo"
CATALOG = "https://catalog.ngc.nvidia.com/orgs/nvidia/teams/nemo/models"
VERSION = "1.13.0"
SIZES = ("xsmall", "small", "small_medium", "medium", "medium_large", "large")
NAMES = tuple(f"stt_en_squeezeformer_ctc_{size}_ls" for size in SIZES)
STALL = 30.0  # seconds without an answer or without data after which an attempt fails
SLOWEST = 1024  # bytes per second below which an attempt fails; a server can send single bytes for ever
PIECE = 2**20  # bytes
ATTEMPTS = 3  # as in NeMo, because NGC does not always answer


def location(name: str) -> str:
    """Return the address of the ``.nemo`` file of the model ``name``."""
    return f"{NGC}/{name}/versions/{VERSION}/files/{name}.nemo"


def register(ctc_bpe_models: ModuleType) -> None:
    """Make NeMo list the six models, and make NeMo use ``fetch`` to download a model.

    Do nothing if NeMo itself lists the six models.

    Args:
        ctc_bpe_models: NeMo's module ``ctc_bpe_models``.
    """
    model: Any = ctc_bpe_models.EncDecCTCModelBPE
    if set(NAMES) <= set(model.get_available_model_names()):
        return
    listed = model.list_available_models.__func__

    def list_available_models(cls: Any) -> list[Any]:
        # The two texts are the texts of NeMo 2.7.3, because the hash of the texts is the name of the cache folder.
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
            refresh_cache = False
        return download(url, filename, subfolder=subfolder, cache_dir=cache_dir, refresh_cache=refresh_cache)

    common.maybe_download_from_cloud = maybe_download_from_cloud  # type: ignore[attr-defined]


def fetch(address: str, path: Path) -> None:
    """Download a ``.nemo`` file to ``path``.

    An existing file is replaced only after a complete download.

    Raises:
        UserError: the download fails, or the file is not a complete archive.
    """
    from nemo.utils import logging

    reason: Exception | None = None
    for attempt in range(ATTEMPTS):
        logging.info(f"Downloading {address} to {path} (attempt {attempt + 1} of {ATTEMPTS})")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as part:
                _download(address, part)
                with tarfile.open(part) as archive:
                    archive.getmembers()
            return
        except (OSError, ValueError, HTTPException, tarfile.TarError) as error:  # URLError and timeouts are OSErrors
            reason = error
    raise UserError(
        f"{path.stem} could not be fetched from {address} ({type(reason).__name__}: {reason}). Download the file on "
        f"a machine with network access. Then give its path to restore_from() or to the command, or copy it to {path}, "
        "where from_pretrained() looks first"
    ) from reason


def _download(address: str, path: Path) -> None:
    """Write the file at ``address`` to ``path``.

    Raises:
        OSError: the server does not answer for ``STALL`` seconds or sends fewer than ``SLOWEST`` bytes per second, or
            the file has another size than announced.
    """
    start = time.monotonic()
    with urllib.request.urlopen(address, timeout=STALL) as answer, path.open("xb") as file:
        announced, received = answer.headers.get("Content-Length"), 0
        while piece := answer.read1(PIECE):  # read1 returns what has arrived, and times out if nothing arrives
            file.write(piece)
            received += len(piece)
            seconds = time.monotonic() - start
            if seconds > STALL and received < SLOWEST * seconds:
                raise TimeoutError(f"the server sent only {received} bytes in {seconds:.0f} s")
        if announced is not None and received != int(announced):
            raise ContentTooShortError(f"received {received} of {announced} bytes", (str(path), answer.headers))
