"""Training without CUDA computes the loss of a transducer by anti-diagonals instead of with NeMo's loss.

On a CPU, NeMo's transducer loss has a loop in Python over all nodes of the lattice. NeMo's TDT loss needs CUDA.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.collections.asr.losses.rnnt import RNNTLoss
from nemo.collections.asr.parts.numba.rnnt_loss import RNNTLossNumba, TDTLossNumba
from nemo.utils import logging
from torch import nn

from nemo_squeezeformer.integration.losses.tdt import AntiDiagonalTDTLoss
from nemo_squeezeformer.integration.losses.transducer import AntiDiagonalTransducerLoss


class TransducerLossWithoutCUDA(Callback):
    """A callback that replaces NeMo's transducer loss by an equal loss, if the device of the trainer is not CUDA.

    The losses ``default``, ``warprnnt_numba`` and ``tdt`` of NeMo are replaced. Another loss does not change. The
    configuration of the model does not change, so a saved model names NeMo's loss.

    ``nemo-squeezeformer train`` adds the callback. In other programs, put the callback into ``trainer.callbacks``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        found: Any = getattr(pl_module, "loss", None)  # the joint network has the same object
        if not isinstance(found, RNNTLoss) or trainer.strategy.root_device.type == "cuda":
            return
        equal = equal_loss(found._loss)
        if equal is not None:
            logging.info(f"The transducer loss is {type(equal).__name__}, which equals {type(found._loss).__name__}")
            found._loss = equal


def add_callback(trainer: Trainer) -> None:
    """Add the callback, unless the trainer has it."""
    given: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not any(isinstance(other, TransducerLossWithoutCUDA) for other in given):
        given.insert(0, TransducerLossWithoutCUDA())


def equal_loss(loss: nn.Module) -> nn.Module | None:
    """Return the loss by anti-diagonals that equals a loss of NeMo, or None if there is no equal loss."""
    if isinstance(loss, TDTLossNumba):
        return AntiDiagonalTDTLoss(loss.blank, loss.durations, loss.fastemit_lambda, loss.clamp, loss.sigma, loss.omega)
    if isinstance(loss, RNNTLossNumba):
        return AntiDiagonalTransducerLoss(loss.blank, loss.fastemit_lambda, loss.clamp)
    return None
