"""NeMo's own writing of the best weights with PyTorch 2.6 or later, for NeMo's training scripts."""

from __future__ import annotations

from functools import wraps
from typing import Any

from nemo_squeezeformer.integration.resuming.checkpoint_contents import plain_objects


def let_read(writer: Any) -> None:
    """Let NeMo's callback for checkpoints read the best checkpoint of the run.

    With ``save_best_model``, NeMo 2.7.3 reads this checkpoint with ``torch.load``. From PyTorch 2.6 on, ``torch.load``
    refuses the configuration in the checkpoint. The configuration consists of plain values, which run no code.

    Args:
        writer: the class ``NeMoModelCheckpoint``.
    """
    original = writer.on_save_checkpoint

    @wraps(original)
    def on_save_checkpoint(self: Any, *arguments: Any) -> Any:
        with plain_objects(str(self.best_model_path) if self.save_best_model else ""):
            return original(self, *arguments)

    writer.on_save_checkpoint = on_save_checkpoint
