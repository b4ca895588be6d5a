"""A Lightning callback that shows one progress bar for the whole training and records losses and WERs."""

from typing import Any, TextIO

from lightning.pytorch import Callback
from tqdm import tqdm


class Progress(Callback):
    """A callback that shows the progress bar and records losses and WERs.

    ``losses`` and ``wers`` are lists of (step, value) pairs. The bar shows the mean of the last 25 losses.
    """

    def __init__(self, steps: int, screen: TextIO) -> None:
        self.losses: list[tuple[int, float]] = []
        self.wers: list[tuple[int, float]] = []
        # In a file or a pipe each update is a new line, so one update in 15 seconds is enough.
        interval = 0.2 if screen.isatty() else 15.0
        self.bar = tqdm(
            total=steps, desc="training", unit="step", file=screen, mininterval=interval, dynamic_ncols=True
        )

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append((trainer.global_step, float(outputs["loss"])))
        self._show()
        self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.wers.append((trainer.global_step, float(trainer.callback_metrics["val_wer"])))
        self._show()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.bar.refresh()
        self.bar.close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.bar.close()

    def _show(self) -> None:
        last = [loss for _, loss in self.losses[-25:]]
        shown = {"loss": f"{sum(last) / len(last):.2f}"} if last else {}
        if self.wers:
            shown["val_WER"] = f"{self.wers[-1][1]:.1%}"
        self.bar.set_postfix(shown, refresh=False)
