"""The reader of the authors' TensorFlow checkpoints, which contain the weights of the encoder and of the CTC layer.

The network is the network of github.com/kssteven418/Squeezeformer. An encoder with ``variant="original"`` computes the
same outputs. The reader finds the dimensions of the network in the shapes of the arrays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_squeezeformer.checkpoints.keras_file import read_arrays
from nemo_squeezeformer.checkpoints.original_layout import Row, rows
from nemo_squeezeformer.core.frames.spans import build_spans
from nemo_squeezeformer.errors import UserError

BLANK_OUT_OF_REACH = -1e4  # a bias within the range of half precision; an output with this bias is never the maximum

# The pattern of the name of a layer. The name begins with the name of the encoder, which the user chooses.
LAYER = re.compile(r"(?:(.*?)_)?(subsampling_\w+|preln|linear|timereduce_\w+|block_\d+_\w+|logits)")
ATTENTION = re.compile(r"block_\d+_layer1_mhsa_mhsa")
UNNAMED = re.compile(r"dense(_\d+)?")  # the number counts all dense layers of a process and has no meaning

# Other networks that the authors' code can build. The keys are patterns of array names that only these networks have.
OTHERS = {
    r"block_\d+_\w+_(mhsa|ff|conv)_ln/.*": "a LayerNorm before each module instead of Squeezeformer's scale and bias "
    "(encoder_adaptive_scale: false)",
    r"block_\d+_ln/.*": "a LayerNorm after each block, as in Conformer (encoder_no_post_ln: false)",
    r"block_\d+_layer\d_.*": "blocks with other modules or another order of modules (encoder_fixed_arch)",
}


@dataclass(frozen=True)
class Original:
    """A checkpoint with the names and layouts of this package.

    ``settings`` are the arguments of ``SqueezeformerEncoder``, and ``encoder`` is the state dict. ``logits_weight``
    (V, D, 1) and ``logits_bias`` (V,) are the weights of the CTC layer. Output 0 of the CTC layer is the CTC blank, and
    also the piece ``<unk>`` of the tokenizer.
    """

    settings: dict[str, Any]
    encoder: dict[str, Tensor]
    logits_weight: Tensor
    logits_bias: Tensor

    @property
    def vocabulary_size(self) -> int:
        """The number of pieces of the tokenizer."""
        return self.logits_bias.numel()

    def nemo_decoder(self) -> tuple[Tensor, Tensor]:
        """Return the weight (V + 1, D, 1) and the bias (V + 1,) of NeMo's CTC decoder.

        The last output of NeMo's decoder is the blank. The decoder never outputs piece 0, because output 0 of the
        authors' CTC layer is the blank and not a piece.
        """
        weight = torch.cat([self.logits_weight, self.logits_weight[:1]])
        bias = torch.cat([self.logits_bias, self.logits_bias[:1]])
        weight[0], bias[0] = 0.0, BLANK_OUT_OF_REACH
        return weight, bias


def read(path: str | Path, time_reduce_idx: int | None = None, time_recovery_idx: int | None = None) -> Original:
    """Read an .h5 file that ``save_weights`` has written in the authors' code.

    Every array of the file is used exactly once.

    Args:
        path: the path of the file.
        time_reduce_idx: the first layer at half the frame rate. The file does not contain this number. None means
            ``(n_layers - 1) // 2``, as in all published sizes.
        time_recovery_idx: the first layer at the full frame rate after the temporal U-Net. The file does not contain
            this number. None means ``n_layers - 1``, as in all published sizes.

    Raises:
        UserError: ``keras_file.read_arrays`` refuses the file. An array is missing, does not belong to a Squeezeformer,
            or has a shape that does not match the other shapes. The indices do not match the layers. The error names
            the array or the index.
    """
    arrays = read_arrays(Path(path))
    try:
        return arrange(arrays, time_reduce_idx, time_recovery_idx)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def arrange(
    arrays: dict[str, Tensor], time_reduce_idx: int | None = None, time_recovery_idx: int | None = None
) -> Original:
    """Convert the arrays of a file to an ``Original``.

    The arrays must have the same order as in the file. The function removes the arrays from the dictionary.
    """
    names, prefix = _sources(arrays)
    blocks = [int(block) for block in re.findall(r"^block_(\d{1,18})_", "\n".join(names), flags=re.MULTILINE)]
    n_layers = max(blocks, default=0) + 1
    if n_layers > len(names):
        raise UserError(f"block_{n_layers - 1} is named, but the file has only {len(names)} arrays; it is damaged")
    depthwise = any(source.startswith("subsampling_2_") for source in names)
    unet = any(source.startswith(("timereduce_", "recovery/")) for source in names)
    table = rows(n_layers, depthwise, unet)
    _check_names(names, table, prefix)
    sizes = _sizes({row: arrays[names[row.source]].shape for row in table}, names)

    settings = _settings(n_layers, depthwise, sizes)
    settings |= _indices(n_layers, unet, time_reduce_idx, time_recovery_idx)
    state = {
        row.target: row.layout(arrays.pop(names[row.source]), sizes["C"]).contiguous() for row in table
    }  # the arrays are popped so that a large model is not in memory twice
    for layer in range(n_layers):
        state[f"layers.{layer}.conv.batch_norm.num_batches_tracked"] = torch.tensor(0)  # unused: momentum is fixed
    weight, bias = state.pop("logits.weight"), state.pop("logits.bias")
    return Original(settings, state, weight, bias)


def _sources(arrays: Iterable[str]) -> tuple[dict[str, str], str]:
    """Find the name in the file for each ``Row.source``, and the prefix of the layer names.

    Returns:
        A dict from ``Row.source`` to the name in the file, and the prefix, for example ``conformer_encoder_``.
    """
    names: dict[str, str] = {}
    prefixes: Counter[str] = Counter()
    unnamed: dict[str, list[str]] = {}  # parent layer -> layers with the default name "dense", in file order
    for name in arrays:
        *scopes, leaf = name.partition(":")[0].split("/")
        places = [found for scope in scopes if (found := LAYER.fullmatch(scope))]
        if found := LAYER.fullmatch(leaf):  # variables outside of layers
            source = found[2]
        elif scopes and UNNAMED.fullmatch(scopes[-1]):
            within = next((place[2] for place in places if ATTENTION.fullmatch(place[2])), "")
            layers = unnamed.setdefault(within, [])
            if "/".join(scopes) not in layers:
                layers.append("/".join(scopes))
            number = layers.index("/".join(scopes))
            expected = [f"{within}/{part}" for part in "qkv"] if within else ["recovery"]
            source = f"{expected[number]}/{leaf}" if number < len(expected) else name
        elif scopes and (found := LAYER.fullmatch(scopes[-1])):
            source = f"{found[2]}/{leaf}"
        else:
            source = name
        if source in names:
            raise UserError(f"{name} and {names[source]} are the same array of the network; remove one array")
        names[source] = name
        if places and places[0][1] and places[0][2] != "logits":
            prefixes[f"{places[0][1]}_"] += 1
    return names, next((prefix for prefix, _ in prefixes.most_common(1)), "")


def _check_names(names: Mapping[str, str], table: list[Row], prefix: str) -> None:
    expected = {row.source for row in table}
    extra = [source for source in names if source not in expected]
    for source in extra:
        for pattern, what in OTHERS.items():
            if re.fullmatch(pattern, source):
                raise UserError(f"{names[source]} does not belong to a Squeezeformer; it indicates {what}")
    if extra:
        raise UserError(f"{_listed(names[source] for source in extra)}: does not belong to a Squeezeformer-CTC")
    missing = [row.source for row in table if row.source not in names]
    if missing:
        shown = _listed(_full_name(source, names, prefix) for source in missing)
        unnamed = any(re.search(r"/[qkv]/|^recovery/", source) for source in missing)
        note = "; the layers of query, key, value and recovery have no names and are identified by order and place"
        raise UserError(f"{shown}: not in the file{note if unnamed else ''}")


def _full_name(source: str, names: Mapping[str, str], prefix: str) -> str:
    """Return the Keras name of a missing array, as far as the other arrays of the same layer determine the name."""
    layer, _, leaf = source.rpartition("/")
    beside = [name for other, name in names.items() if layer and other.rpartition("/")[0] == layer]
    if beside:
        return f"{beside[0].rpartition('/')[0]}/{leaf}:0"
    return source if source.startswith("logits") else prefix + source


def _sizes(shapes: Mapping[Row, torch.Size], names: Mapping[str, str]) -> dict[str, int]:
    """Return the size for each letter in the shapes of the rows.

    The size is the most frequent size in the arrays. An error can therefore name an array with a different size.
    """
    votes: dict[str, Counter[int]] = {}
    for row, shape in shapes.items():
        if len(row.shape) == len(shape):
            for letter, size in zip(row.shape, shape):
                votes.setdefault(letter, Counter())[size] += 1
    sizes = {letter: counter.most_common(1)[0][0] for letter, counter in votes.items()}
    sizes |= {letter: int(letter) for letter in sizes if letter.isdecimal()}

    if sizes.get("E") == sizes.get("D"):
        gated = next(names[row.source] for row in shapes if row.source.endswith("dw_conv/depthwise_kernel"))
        raise UserError(
            f"{gated} is as wide as the encoder: this is Conformer's gated convolution (encoder_conv_use_glu: true)"
        )
    for row, shape in shapes.items():
        expected = tuple(sizes.get(letter, -1) for letter in row.shape)
        if tuple(shape) != expected:
            written = ", ".join(letter if size < 0 else str(size) for letter, size in zip(row.shape, expected))
            raise UserError(f"{names[row.source]} has the shape {tuple(shape)}; the other arrays require ({written})")
    _check_sizes(sizes, names)
    return sizes


def _check_sizes(sizes: Mapping[str, int], names: Mapping[str, str]) -> None:
    d_model, heads, channels = sizes["D"], sizes["H"], sizes["C"]
    for holds, source, problem in [
        (d_model % 2 == 0, "preln/gamma", f"the width is {d_model}, but position encodings need an even width"),
        (
            heads * sizes["S"] == d_model,
            "mhsa/pos_kernel",
            f"{heads} heads of width {sizes['S']} do not make the width {d_model}",
        ),
        (
            sizes["E"] == 2 * d_model,
            "pw_conv_1/kernel",
            f"{sizes['E']} channels are not twice the width {d_model}",
        ),
        (
            sizes["I"] % d_model == 0,
            "ff_dense_1/kernel",
            f"{sizes['I']} channels are not a multiple of the width {d_model}",
        ),
        (
            sizes["W"] % channels == 0,
            "linear/kernel",
            f"{sizes['W']} rows are not a multiple of the {channels} channels",
        ),
        (
            sizes["K"] % 2 == 1,
            "conv_dw_conv/depthwise_kernel",
            f"the kernel size {sizes['K']} is even; expected an odd number of frames",
        ),
    ]:
        if not holds:
            raise UserError(f"{next(name for key, name in names.items() if key.endswith(source))}: {problem}")


def _settings(n_layers: int, depthwise: bool, sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        "variant": "original",
        "feat_in": 4 * (sizes["W"] // sizes["C"]),  # two strides of 2; the authors' code accepts only 80
        "d_model": sizes["D"],
        "n_layers": n_layers,
        "n_heads": sizes["H"],
        "ff_expansion_factor": sizes["I"] // sizes["D"],
        "conv_kernel_size": sizes["K"],
        "subsampling": "dw_striding" if depthwise else "striding",
        "subsampling_factor": 4,
        "subsampling_conv_channels": sizes["C"],
        "dropout_emb": 0.0,
        "dropout_att": 0.0,
    }


def _indices(n_layers: int, unet: bool, reduce: int | None, recover: int | None) -> dict[str, int | None]:
    if not unet:
        if reduce is not None or recover is not None:
            given = f"time_reduce_idx={reduce}, time_recovery_idx={recover}"
            raise UserError(f"{given}: the file has neither time reduction nor recovery; leave the indices out")
        return {"time_reduce_idx": None, "time_recovery_idx": None}
    reduce = (n_layers - 1) // 2 if reduce is None else reduce
    recover = n_layers - 1 if recover is None else recover
    try:
        build_spans(n_layers, reduce, recover)
    except ValueError as error:
        raise UserError(str(error)) from error
    return {"time_reduce_idx": reduce, "time_recovery_idx": recover}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
