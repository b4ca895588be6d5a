"""The decoding of utterances by NeMo's models. The results are in the order of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance

if TYPE_CHECKING:
    from nemo_squeezeformer.transcription.speech import Sounds, SpeechBatches


def decoding_config(
    model: Any,
    utterances: Sequence[Utterance],
    timestamps: bool = False,
    prompt: Mapping[str, str] | None = None,
) -> Any:
    """Return the ``TranscribeConfig`` of the model for ``decode``. The function does not change the model.

    Args:
        model: a NeMo ASR model.
        utterances: the utterances to decode.
        timestamps: if True, request timestamps of words and segments. Also call ``models.enable_timestamps``, so that
            the decoder keeps the timestamps.
        prompt: values for the slots of the prompt of an AED model. The value of any other slot comes from the rows of
            ``utterances``, or is the default of the model.

    Raises:
        UserError: the model has no prompt, the prompt does not have a given slot, or a slot of the prompt has no value
            or different values in the rows.
    """
    config = model.get_transcribe_config()
    config.verbose = False
    if hasattr(config, "prompt"):
        from nemo.collections.asr.models.aed_multitask_models import parse_multitask_prompt

        config.prompt = parse_multitask_prompt(_prompt(model, utterances, prompt or {}, timestamps))
        config.enable_chunking = False  # chunking would treat the batch as the chunks of one recording
    elif prompt:
        raise UserError(f"--prompt: a model of class {type(model).__name__} has no prompt; leave out --prompt")
    if timestamps:
        config.timestamps = config.return_hypotheses = True
    return config


class Result(NamedTuple):
    """The result of an utterance.

    Attributes:
        best: NeMo's ``Hypothesis`` or a str. The text is empty if the utterance has a problem, or if the utterance is
            shorter than a feature frame.
        problem: the reason why the audio cannot be read or cannot be used; empty for a good utterance.
    """

    best: Any
    problem: str = ""


def decode(
    model: Any, config: Any, utterances: Sequence[Utterance], batch_size: int, num_workers: int, channel: str | int
) -> Iterator[list[Result]]:
    """Yield the result of each utterance, batch by batch, in the given order.

    A batch has ``batch_size`` utterances, or fewer if the utterances are long (see ``long_audio.batches``). NeMo's
    generator reads from a DataLoader of this package, for two reasons. NeMo's own DataLoader may drop rows, and
    hypotheses could then not be assigned to utterances. NeMo's own DataLoader also needs a ``validation_ds``, which the
    configuration of the model may lack.

    Args:
        model: a NeMo ASR model.
        config: the result of ``decoding_config``.
        utterances: the utterances to decode.
        batch_size: maximum number of utterances in a batch.
        num_workers: number of processes that read audio; 0 to read in this process.
        channel: the channel of audio with several channels: ``"average"`` or a number from 0.
    """
    from nemo_squeezeformer.transcription.long_audio import batches
    from nemo_squeezeformer.transcription.speech import Speech, shortest_samples

    speech = Speech(utterances, model.preprocessor._sample_rate, channel, shortest_samples(model.preprocessor))
    if not utterances:
        return iter(())
    # The first resampling loads librosa in seconds. Load librosa here, and not in every worker. The time that
    # `transcribe` reports begins after this call for its first group of utterances.
    speech[0]
    together = list(batches([utterance.duration for utterance in utterances], batch_size))
    return decode_sounds(model, config, speech, together, num_workers)


def decode_sounds(
    model: Any, config: Any, sounds: Sounds, together: Sequence[Sequence[int]], num_workers: int = 0
) -> Iterator[list[Result]]:
    """Yield the result of each sound, batch by batch.

    Args:
        model: a NeMo ASR model.
        config: the result of ``decoding_config``.
        sounds: the ``Sound`` of each index.
        together: the indices of each batch.
        num_workers: number of processes that read audio; 0 to read in this process.
    """
    from nemo_squeezeformer.transcription.speech import SpeechBatches

    loader = SpeechBatches(sounds, together, num_workers)
    return _results(loader, _best(model.transcribe_generator(loader, override_config=config)))


def _results(loader: SpeechBatches, batches: Iterator[list[Any]]) -> Iterator[list[Result]]:
    for batch in batches:
        yield _joined(loader, batch)
    if loader.sounds:  # the sounds of batches without any samples
        yield _joined(loader, [])


def _joined(loader: SpeechBatches, hypotheses: list[Any]) -> list[Result]:
    """Return the results of all sounds since the last call. The hypotheses belong to the sounds with samples."""
    sounds, loader.sounds = loader.sounds, []
    if len(hypotheses) != sum(sound.samples is not None for sound in sounds):
        raise RuntimeError(f"the model returned {len(hypotheses)} transcripts for another number of utterances")
    found = iter(hypotheses)
    return [Result("" if sound.samples is None else next(found), sound.problem) for sound in sounds]


def _best(batches: Iterator[Any]) -> Iterator[list[Any]]:
    import torch

    while True:
        with torch.inference_mode():  # around the yield, inference mode would also apply to the caller
            batch = next(batches, None)
        if batch is None:
            return
        hypotheses = batch[0] if isinstance(batch, tuple) else batch  # some decoders return (best, all)
        yield [hypothesis[0] if isinstance(hypothesis, list) else hypothesis for hypothesis in hypotheses]


def _prompt(model: Any, utterances: Sequence[Utterance], asked: Mapping[str, str], timestamps: bool) -> dict[str, Any]:
    """Return one prompt for all utterances.

    The value of a slot is the value in ``asked``. If ``asked`` has no value, the value comes from the rows. If the rows
    have no value, the value is the default of the model.
    """
    slots = {name: value for turn in model.prompt.get_default_dialog_slots() for name, value in turn["slots"].items()}
    for name, default in slots.items():
        rows = {row[name] for row in (utterance.row for utterance in utterances) if isinstance(row.get(name), str)}
        if len(rows) > 1 and name not in asked:
            raise UserError(
                f"the rows have different values of {name} ({', '.join(sorted(rows))}): split the manifest, "
                f"or pass --prompt {name}=VALUE"
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
