"""The accelerator and the number of processes that Lightning chooses for the settings of a ``trainer``."""

from typing import Any

from nemo_squeezeformer.errors import UserError


def accelerator(name: str) -> str:
    """Return the accelerator that Lightning chooses for ``auto`` and ``gpu``: ``cuda``, ``mps`` or ``cpu``.

    Return any other name unchanged.
    """
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

    if name not in ("auto", "gpu"):
        return name
    return "cuda" if CUDAAccelerator.is_available() else "mps" if MPSAccelerator.is_available() else "cpu"


def processes(name: str, devices: Any) -> int:
    """Return the number of processes that Lightning starts on a node.

    Args:
        name: ``trainer.accelerator``.
        devices: ``trainer.devices``.

    Raises:
        UserError: Lightning refuses the settings.
    """
    from lightning.pytorch.accelerators import AcceleratorRegistry

    try:
        kind = AcceleratorRegistry.get(accelerator(name))
        if devices in ("auto", None):
            return kind.auto_device_count()
        parsed = kind.parse_devices(devices)
    except Exception as error:  # the type of Lightning's errors depends on the accelerator
        given = f"trainer.devices={devices} with trainer.accelerator={name}"
        raise UserError(f"{given}: {error}; set trainer.devices=auto to use all available devices") from error
    return len(parsed) if isinstance(parsed, (list, tuple)) else int(parsed or 0)
