"""The accelerator and the number of processes that Lightning chooses for a ``trainer``."""

from typing import Any

from nemo_squeezeformer.errors import UserError


def accelerator(name: str) -> str:
    """``cuda``, ``mps`` or ``cpu``, chosen as Lightning chooses for ``auto`` and ``gpu``; another name as it stands."""
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

    if name not in ("auto", "gpu"):
        return name
    return "cuda" if CUDAAccelerator.is_available() else "mps" if MPSAccelerator.is_available() else "cpu"


def processes(name: str, devices: Any) -> int:
    """How many processes Lightning starts on a node for these ``trainer.accelerator`` and ``trainer.devices``.

    Raises:
        UserError: Lightning refuses them.
    """
    from lightning.pytorch.accelerators import AcceleratorRegistry

    try:
        kind = AcceleratorRegistry.get(accelerator(name))
        if devices in ("auto", None):
            return kind.auto_device_count()
        parsed = kind.parse_devices(devices)
    except Exception as error:  # Lightning's own kinds differ by accelerator
        given = f"trainer.devices={devices} with trainer.accelerator={name}"
        raise UserError(f"{given}: {error}; trainer.devices=auto takes what there is") from error
    return len(parsed) if isinstance(parsed, (list, tuple)) else int(parsed or 0)
