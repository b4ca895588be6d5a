"""The training of small models with sub-word units on one CPU thread."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measuring import training
from benchmarks.measuring.recordings import Recordings
from benchmarks.measuring.small_encoders import SHARED, SQUEEZEFORMER

RECIPE = "squeezeformer_hybrid_transducer_ctc_bpe"
BATCH = 16
CTC_ENCODER = (
    SHARED | SQUEEZEFORMER | {"d_model": 96, "time_reduce_idx": 2, "subsampling_factor": 4, "conv_kernel_size": 31}
)


class Plan(NamedTuple):
    """A training: the data, the kind of the model, the number of sub-word units, and the number of steps."""

    data: str
    kind: str
    vocabulary: int
    steps: int


PLANS = {
    "digits-ctc": Plan("digits", "CTC", 27, 1000),
    "digits-hybrid": Plan("digits", "hybrid", 27, 250),
    "speechocean-ctc": Plan("speechocean", "CTC", 256, 1800),
}


def train(plan: Plan, recordings: Recordings, folder: Path) -> None:
    """Train the tokenizer and the model, and write both to ``folder``."""
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    task = training.Task(recordings, folder / "tokenizer", plan.steps, BATCH)
    training.make_tokenizer(task, plan.vocabulary)
    began = time.process_time()
    if plan.kind == "hybrid":
        model = _hybrid(task, folder.parent / f"{plan.data}-ctc" / "model.nemo")
    else:
        model = training.train(CTC_ENCODER, task, 1.5e-3, 1).model
    print(f"{task.steps} steps in {time.process_time() - began:.0f} processor seconds")
    model.save_to(str(folder / "model.nemo"))


def _hybrid(task: training.Task, start: Path, peak: float = 1.5e-3, seed: int = 0) -> Any:
    """Train a hybrid model. Its encoder and its CTC decoder start from the CTC model in the file ``start``."""
    import lightning.pytorch as lightning
    from hydra.utils import get_class
    from nemo.collections.asr.models import ASRModel
    from omegaconf import OmegaConf

    from nemo_squeezeformer.integration.callbacks import transducer_loss
    from nemo_squeezeformer.training.recipes import check, compose

    cfg = compose(RECIPE, overrides(task))
    check(cfg)
    settings: Any = OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True))
    settings.encoder = CTC_ENCODER
    settings.optim.lr, settings.optim.sched = peak, training.schedule(task.steps, peak)
    lightning.seed_everything(seed)
    trainer = training.one_thread_trainer(task.steps)
    model = get_class(cfg.model_target)(cfg=settings, trainer=trainer)
    ctc = ASRModel.restore_from(str(start), map_location="cpu")
    model.encoder.load_state_dict(ctc.encoder.state_dict())
    model.ctc_decoder.load_state_dict(ctc.decoder.state_dict())
    transducer_loss.add_callback(trainer)
    trainer.fit(model)
    return model


def overrides(task: training.Task) -> list[str]:
    """Return the overrides of the hybrid recipe, except for the encoder."""
    return [
        "size=tiny",
        *training.data_settings(task.recordings, task.batch),
        f"model.tokenizer.dir={task.tokenizer}",
        f"model.encoder.d_model={CTC_ENCODER['d_model']}",
        f"model.encoder.n_layers={CTC_ENCODER['n_layers']}",
        f"model.encoder.time_reduce_idx={CTC_ENCODER['time_reduce_idx']}",
        "model.joint.jointnet.dropout=0",
        f"model.joint.fused_batch_size={task.batch}",
        "model.decoder.prednet.dropout=0",
        "transducer.hidden=64",
        f"trainer.max_steps={task.steps}",
    ]
