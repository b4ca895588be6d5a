"""NeMo's transcribing of utterances, whatever the model's decoder: best hypotheses, batch by batch, in order."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance


def load_model(name: str, device: Any, verbose: bool = False) -> Any:
    """A model that transcribes, as ``restore`` finds it.

    Raises:
        UserError: as ``restore`` does; a model that does not transcribe.
    """
    model = restore(name, device, verbose)
    if not hasattr(model, "transcribe_generator"):
        raise UserError(f"{name} is of class {type(model).__name__}, which does not transcribe; give an ASR model")
    return model


def restore(name: str, device: Any, verbose: bool = False) -> Any:
    """A .nemo file, or a pretrained model by its name, on ``device`` and in evaluation mode.

    Raises:
        UserError: no such file and no such pretrained model, or no network to fetch it (with ``verbose`` the cause
            itself is raised).
    """
    from nemo.collections.asr.models import ASRModel

    if Path(name).is_file():
        model = ASRModel.restore_from(name, map_location=device)
    else:
        try:
            model = ASRModel.from_pretrained(name, map_location=device)
        except UserError:
            raise
        except Exception as error:  # whatever the hub, the network or the cache raise
            if verbose:
                raise
            reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
            raise UserError(
                f"{name!r} is no file, and could not be fetched as a pretrained model ({reason}); "
                "check the name and the network, or download the .nemo file and give its path"
            ) from error
    return model.to(device).eval()


def optimize(model: Any) -> None:
    """Has features of long audio made in pieces, and an encoder of ours without adapters optimised for inference."""
    from nemo_squeezeformer.integration.piecewise_preprocessor import in_pieces

    model.preprocessor = in_pieces(model.preprocessor)
    encoder: Any = getattr(model, "encoder", None)
    if hasattr(encoder, "optimize_for_inference") and not adapted(encoder):
        encoder.optimize_for_inference()


def adapted(encoder: Any) -> bool:
    """Whether PEFT adapters take part in what ``encoder`` computes."""
    return hasattr(encoder, "is_adapter_available") and encoder.is_adapter_available()


def choose_decoder(model: Any, decoder: str | None) -> None:
    """Has a hybrid model decode with its ``ctc`` or ``rnnt`` decoder; None is for its own choice.

    Raises:
        UserError: the model has no such decoder.
    """
    if decoder and hasattr(model, "cur_decoder"):
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    elif decoder and decoder != ("rnnt" if hasattr(model, "joint") else "ctc"):
        raise UserError(
            f"--decoder {decoder}: a model of class {type(model).__name__} has no such decoder; leave the option out"
        )


def settings(
    model: Any,
    utterances: Sequence[Utterance],
    *,
    timestamps: bool = False,
    decoder: str | None = None,
    prompt: Mapping[str, str] | None = None,
) -> Any:
    """The model's own ``TranscribeConfig``; the model's decoding is changed to what is asked.

    Raises:
        UserError: the model has no such decoder, no timestamps, or no such prompt.
    """
    from omegaconf import open_dict

    kind = type(model).__name__
    choose_decoder(model, decoder)
    config = model.get_transcribe_config()
    config.verbose = False
    if hasattr(config, "prompt"):
        from nemo.collections.asr.models.aed_multitask_models import parse_multitask_prompt

        config.prompt = parse_multitask_prompt(_prompt(model, utterances, prompt or {}, timestamps))
        config.enable_chunking = False  # it would take the batch for chunks of one recording
    elif prompt:
        raise UserError(f"--prompt: a model of class {kind} takes no prompt; leave the option out")
    if timestamps:
        if "timestamps" not in inspect.signature(model.transcribe).parameters:
            raise UserError(f"--timestamps: a model of class {kind} does not give them; leave the option out")
        if "window_stride" not in model.cfg.preprocessor:  # NeMo reads it there, also where it is the default
            with open_dict(model.cfg.preprocessor):
                hop = model.preprocessor.featurizer.hop_length
                model.cfg.preprocessor.window_stride = hop / model.preprocessor._sample_rate
        if not hasattr(config, "prompt"):
            from torch.utils.data import DataLoader

            # Each class of model turns its decoder's timestamps on in transcribe(), so let it transcribe nothing.
            model.transcribe(DataLoader([]), timestamps=True, verbose=False)  # type: ignore[arg-type]
        config.timestamps = config.return_hypotheses = True
    return config


def hypotheses(
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
    loader: Any = DataLoader(speech, batch_sampler=together, num_workers=num_workers, collate_fn=_collate)
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


class Speech:
    """What a DataLoader asks of a data set: each utterance's samples, (T,), one channel at the model's rate."""

    def __init__(self, utterances: Sequence[Utterance], sample_rate: int, channel: str | int) -> None:
        self.utterances, self.sample_rate, self.channel = utterances, sample_rate, channel

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Any:
        import numpy as np
        import torch
        from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

        utterance = self.utterances[index]
        paths = utterance.audio if isinstance(utterance.audio, list) else [utterance.audio]
        # Not AudioSegment.from_file: NeMo 2.7.3's goes by the extension, and wants ffmpeg for .opus, .mp3 or .FLAC.
        read = [_read(path, utterance) for path in paths]
        samples = np.stack([samples for samples, _ in read], axis=-1) if len(read) > 1 else read[0][0]
        channel = self.channel if utterance.channels > 1 else None
        segment = AudioSegment(samples, read[0][1], target_sr=self.sample_rate, channel_selector=channel)
        return torch.as_tensor(segment.samples)


def _read(path: str, utterance: Utterance) -> tuple[Any, int]:
    """The utterance's samples, (T,) or (T, channels), and their rate."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        file.seek(int(utterance.offset * file.samplerate))
        duration = utterance.row.get("duration")
        frames = int(duration * file.samplerate) if duration else -1  # -1: to the end
        return file.read(frames, dtype="float32"), file.samplerate


def _collate(signals: Sequence[Any]) -> tuple[Any, Any, None, None]:
    """The batch that NeMo's models take for transcribing: samples (B, T), their lengths (B), no text."""
    import torch

    padded = torch.nn.utils.rnn.pad_sequence(list(signals), batch_first=True)
    return padded, torch.tensor([len(signal) for signal in signals]), None, None
