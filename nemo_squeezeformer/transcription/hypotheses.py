"""NeMo's decoding of utterances, whatever the model's decoder: best hypotheses, batch by batch, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.speech import Speech, collate


def decoding_config(
    model: Any,
    utterances: Sequence[Utterance],
    timestamps: bool = False,
    prompt: Mapping[str, str] | None = None,
) -> Any:
    """The model's own ``TranscribeConfig`` for ``decode``; nothing of the model is changed.

    Args:
        timestamps: of words and segments too; ``models.enable_timestamps`` makes the decoder keep them.
        prompt: slots of an AED model's prompt; others as the rows of ``utterances`` say, else the model's default.

    Raises:
        UserError: the model has no such prompt.
    """
    config = model.get_transcribe_config()
    config.verbose = False
    if hasattr(config, "prompt"):
        from nemo.collections.asr.models.aed_multitask_models import parse_multitask_prompt

        config.prompt = parse_multitask_prompt(_prompt(model, utterances, prompt or {}, timestamps))
        config.enable_chunking = False  # it would take the batch for chunks of one recording
    elif prompt:
        raise UserError(f"--prompt: a model of class {type(model).__name__} takes no prompt; leave the option out")
    if timestamps:
        config.timestamps = config.return_hypotheses = True
    return config


def decode(
    model: Any, config: Any, utterances: Sequence[Utterance], batch_size: int, num_workers: int, channel: str | int
) -> Iterator[list[Any]]:
    """The best hypothesis of each utterance (NeMo's ``Hypothesis``, or a str), a batch at a time, in the order given.

    A batch has ``batch_size`` utterances, or fewer where these are long: ``long_audio.batches``. Our own DataLoader
    under NeMo's generator: which hypothesis is whose does not rest on a loader that may drop rows, and nothing is asked
    of the ``validation_ds`` that a model's configuration may lack.

    Args:
        channel: of audio with several channels, ``"average"`` or a number from 0.
    """
    from torch.utils.data import DataLoader

    from nemo_squeezeformer.transcription.long_audio import batches

    speech: Any = Speech(utterances, model.preprocessor._sample_rate, channel)
    speech[0]  # the first resampling loads librosa: seconds that are not the model's, nor each worker's
    together = list(batches([utterance.duration for utterance in utterances], batch_size))
    loader: Any = DataLoader(speech, batch_sampler=together, num_workers=num_workers, collate_fn=collate)
    return _best(model.transcribe_generator(loader, override_config=config))


def _best(batches: Iterator[Any]) -> Iterator[list[Any]]:
    import torch

    while True:
        with torch.inference_mode():  # not around the yield: it would hold for the caller too
            batch = next(batches, None)
        if batch is None:
            return
        hypotheses = batch[0] if isinstance(batch, tuple) else batch  # (best, all) of some decoders
        yield [hypothesis[0] if isinstance(hypothesis, list) else hypothesis for hypothesis in hypotheses]


def _prompt(model: Any, utterances: Sequence[Utterance], asked: Mapping[str, str], timestamps: bool) -> dict[str, Any]:
    """One prompt for all: as asked, else as the rows say, else the model's default."""
    slots = {name: value for turn in model.prompt.get_default_dialog_slots() for name, value in turn["slots"].items()}
    for name, default in slots.items():
        rows = {row[name] for row in (utterance.row for utterance in utterances) if isinstance(row.get(name), str)}
        if len(rows) > 1 and name not in asked:
            raise UserError(
                f"rows differ in {name} ({', '.join(sorted(rows))}): split them, or pass --prompt {name}=VALUE"
            )
        slots[name] = asked.get(name, next(iter(rows), default))
    if timestamps and "timestamp" in slots:
        slots["timestamp"] = "yes"
    unknown = asked.keys() - slots.keys()
    if unknown:
        raise UserError(f"--prompt {min(unknown)}: the model's prompt has only the slots {', '.join(slots)}")
    lacking = [f"--prompt {name}=VALUE" for name, value in slots.items() if value is None]
    if lacking:
        raise UserError(f"the model's prompt has no default for some of its slots; pass {' '.join(lacking)}")
    return slots
