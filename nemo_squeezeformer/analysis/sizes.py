"""The published sizes as data: dimensions from the YAML files of the recipes, and results from the releases."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """The numbers that are published for a size, or measured with the authors' code.

    ``gflops`` are the operations of the encoder for 30 s of 80-bin features at batch size 1, in 10^9. A multiply-add
    is two operations. ``gflops_without_unet`` is the same count without the temporal U-Net, at the full frame rate.

    The WERs are in percent, on LibriSpeech test-clean and test-other, after training on the 960 h of LibriSpeech.
    ``wer`` is from the authors' release. ``wer_nemo`` is from NVIDIA's ``stt_en_squeezeformer_ctc_<size>_ls``.
    """

    encoder_parameters: int
    gflops: float
    gflops_without_unet: float
    wer: tuple[float, float]
    wer_nemo: tuple[float, float]


PUBLISHED = {
    "xs": Published(9_013_248, 17.83, 24.96, (3.74, 9.09), (3.8, 9.4)),
    "s": Published(18_540_424, 33.05, 45.74, (3.08, 7.47), (3.1, 7.4)),
    "sm": Published(28_151_808, 46.90, 63.98, (2.79, 6.89), (2.8, 7.1)),
    "m": Published(55_580_256, 87.05, 118.37, (2.56, 6.50), (2.6, 6.3)),
    "ml": Published(124_959_744, 181.57, 242.75, (2.61, 6.05), (2.5, 5.9)),
    "l": Published(236_171_520, 330.49, 441.51, (2.47, 5.97), (2.4, 5.7)),
}


@dataclass(frozen=True)
class Size:
    """The dimensions and the training settings of one size.

    ``peak_lr`` is the peak learning rate for a global batch of ``peak_lr_batch`` utterances. ``published`` is None for
    ``tiny``, which is not a size of the paper.
    """

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    time_reduce_idx: int
    time_recovery_idx: int
    time_masks: int
    peak_lr: float
    peak_lr_batch: int
    published: Published | None

    @property
    def encoder(self) -> dict[str, int]:
        """The arguments of ``SqueezeformerEncoder`` for this size, without ``feat_in``."""
        names = ("d_model", "n_layers", "n_heads", "time_reduce_idx", "time_recovery_idx")
        return {name: getattr(self, name) for name in names}


@cache
def sizes() -> dict[str, Size]:
    """Return all sizes by name, smallest first: ``sizes()["xs"].d_model == 144``.

    The function needs the package PyYAML. NeMo and Hydra install PyYAML.
    """
    folder = files("nemo_squeezeformer.conf") / "size"
    names = [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    table = [_read(name, (folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in names]
    return {size.name: size for size in sorted(table, key=lambda size: size.d_model)}


def _read(name: str, text: str) -> Size:
    import yaml

    written = yaml.safe_load(text)
    encoder, schedule = written["model"]["encoder"], written["schedule"]
    last = encoder["n_layers"] - 1
    return Size(
        name=name,
        **{
            **encoder,
            "time_recovery_idx": last if encoder["time_recovery_idx"] is None else encoder["time_recovery_idx"],
        },
        time_masks=written["spec_augment"]["time_masks"],
        **schedule,
        published=PUBLISHED.get(name),
    )
