"""The accelerator and the number of processes that Lightning chooses for the settings of a ``trainer``.

The import of Lightning takes seconds. On a machine without a GPU, these functions answer without Lightning.
"""

from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import gpus


def check(cfg: Any) -> None:
    """Refuse a GPU in ``trainer.accelerator`` on a machine without a GPU. The check does not import PyTorch.

    Raises:
        UserError: the accelerator does not exist here. The message names the reason and the remedy.
    """
    from nemo_squeezeformer.training.settings import value

    name = value(cfg, "trainer.accelerator", "auto")
    reason = {"gpu": gpus.without_gpu, "cuda": gpus.without_cuda}.get(name, str)()  # str() is "": no reason
    if reason:
        raise UserError(f"trainer.accelerator={name}: {reason}; use trainer.accelerator=cpu, or a machine with a GPU")


def accelerator(name: str) -> str:
    """Return the accelerator that Lightning chooses for ``auto`` and ``gpu``: ``cuda``, ``mps`` or ``cpu``.

    Return any other name unchanged.
    """
    if name not in ("auto", "gpu"):
        return name
    if gpus.without_gpu():
        return "cpu"
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

    return "cuda" if CUDAAccelerator.is_available() else "mps" if MPSAccelerator.is_available() else "cpu"


def processes(name: str, devices: Any) -> int:
    """Return the number of processes that Lightning starts on a node.

    Args:
        name: ``trainer.accelerator``.
        devices: ``trainer.devices``.

    Raises:
        UserError: Lightning refuses the settings.
    """
    if accelerator(name) == "cpu":
        if devices in ("auto", None):
            return 1
        if type(devices) is int and devices > 0:
            return devices
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
