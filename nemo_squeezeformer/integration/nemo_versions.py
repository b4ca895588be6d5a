"""The versions of NeMo that this package is tested with, and the words for other versions.

This module does not import NeMo, because a warning must not make a program load NeMo.
"""

from __future__ import annotations

import sys

TESTED = ("2.7.3", "3.0.0")  # the extra ``nemo`` of setup.py installs only these versions
# The newest version whose ConformerEncoder was compared with our encoder. NVIDIA has not released this version.
KNOWN = "3.0.1"


def installed() -> str | None:
    """Return the version of the installed NeMo, or None if NeMo is not installed."""
    from importlib import metadata

    try:
        return metadata.version("nemo_toolkit")
    except metadata.PackageNotFoundError:  # NeMo can also be a folder of sources
        return getattr(sys.modules.get("nemo"), "__version__", None)


def tested() -> str:
    """Return the tested versions as words."""
    return f"NeMo {' and '.join(TESTED)}"


def complaint() -> str:
    """Return a warning about the version of the installed NeMo, or an empty text if the version was tested."""
    version = installed()
    if version is None or version in TESTED:
        return ""
    return (
        f"NeMo {version} is installed, but this version of nemo_squeezeformer is tested only with {tested()}. With "
        f"NeMo {version}, a part can fail or give other results. Upgrade nemo_squeezeformer, or install "
        f"nemo_toolkit[asr]=={TESTED[-1]}. If you continue with NeMo {version}, first compare the transcripts of some "
        f"recordings with the transcripts of NeMo {TESTED[-1]}."
    )


def known_arguments() -> str:
    """Return a sentence about the installed NeMo, and a sentence about the NeMo whose arguments our encoder has."""
    version = installed()
    there = f"NeMo {version}" if version else "No NeMo"
    return (
        f"{there} is installed. This version of nemo_squeezeformer is tested with {tested()}, and has the arguments of "
        f"NeMo's ConformerEncoder up to NeMo {KNOWN}."
    )
