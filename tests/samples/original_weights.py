"""Random weights of any size in the authors' format: an HDF5 file of Keras with their names, order and layouts.

``arrays`` makes the weights, and tests may remove some of them. ``save`` writes weights. ``write`` does both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def write(path: str | Path, seed: int = 0, split: bool = False, **dimensions: Any) -> Arrays:
    """Write a file of random weights and return the weights by name. ``dimensions`` are the arguments of ``arrays``."""
    made = arrays(seed=seed, **dimensions)
    save(path, made, split)
    return made


def arrays(
    d_model: int = 32,
    n_layers: int = 4,
    n_heads: int = 4,
    conv_kernel_size: int = 31,
    ff_expansion_factor: int = 4,
    subsampling_conv_channels: int | None = None,
    feat_in: int = 80,
    vocabulary_size: int = 128,
    temporal_unet: bool = True,
    depthwise_subsampling: bool = True,
    name: str = "conformer",
    first_dense: int = 0,
    seed: int = 0,
) -> Arrays:
    """Return random arrays by their names in the authors' file, in the authors' order.

    Args:
        subsampling_conv_channels: None means ``d_model``.
        temporal_unet: False leaves out the reduction layer and the recovery layer.
        depthwise_subsampling: False makes the second convolution a full convolution, as in the authors' Conformers.
        name: The name of the model. The names of its layers begin with it.
        first_dense: The first number in the names of the linear layers of attention. Keras counts them globally.
    """
    rng = np.random.default_rng(seed)
    channels = subsampling_conv_channels or d_model
    shapes: list[tuple[str, tuple[int, ...]]] = []
    top, encoder = f"{name}/{name}_encoder", f"{name}_encoder"
    dense = (f"dense_{number}" if number else "dense" for number in range(first_dense, 10_000))
    for layer, kernel, shape in [
        ("1", "kernel", (3, 3, 1, channels)),
        *(
            [("2_dw", "depthwise_kernel", (3, 3, channels, 1)), ("2_pw", "kernel", (1, 1, channels, channels))]
            if depthwise_subsampling
            else [("2", "kernel", (3, 3, channels, channels))]
        ),
    ]:
        scope = f"{top}/{encoder}_subsampling/{encoder}_subsampling_{layer}"
        shapes += [(f"{scope}/{kernel}", shape), (f"{scope}/bias", (channels,))]
    shapes += _norm(f"{top}/{encoder}_preln", d_model)
    shapes += _dense(f"{top}/{encoder}_linear", feat_in // 2 // 2 * channels, d_model)
    for block in range(n_layers):
        shapes += _block(
            top, f"{encoder}_block_{block}", d_model, n_heads, conv_kernel_size, ff_expansion_factor, dense
        )
    for block in range(n_layers):
        layer = f"{encoder}_block_{block}_layer3"
        scope = f"{top}/{encoder}_block_{block}/{layer}/{layer}_conv/{layer}_conv_bn"
        shapes += [(f"{scope}/moving_mean", (2 * d_model,)), (f"{scope}/moving_variance", (2 * d_model,))]
    if temporal_unet:
        scope = f"{top}/{encoder}_timereduce/{encoder}_timereduce"
        shapes += [(f"{scope}_dw_conv/depthwise_kernel", (5, 1, d_model, 1)), (f"{scope}_dw_conv/bias", (d_model,))]
        shapes += [(f"{scope}_pw_conv_2/kernel", (1, 1, d_model, d_model)), (f"{scope}_pw_conv_2/bias", (d_model,))]
        shapes += _dense(f"{top}/{next(dense) if first_dense else 'dense'}", d_model, d_model)
    logits = f"{name}/{name}_logits"
    shapes += [(f"{logits}/kernel", (1, d_model, vocabulary_size)), (f"{logits}/bias", (vocabulary_size,))]
    return {f"{key}:0": _random(rng, key, shape) for key, shape in shapes}


def save(path: str | Path, arrays: Arrays, split: bool = False) -> None:
    """Write arrays in the format of ``save_weights`` in Keras.

    Args:
        split: Write the list of names in several attributes. Keras does so if one attribute would be too long for HDF5.
    """
    import h5py  # only needed for the authors' files

    groups: dict[str, Arrays] = {}
    for key, array in arrays.items():
        group = next((part for part in key.split("/") if part.endswith(("_encoder", "_logits"))), None)
        if group is None:  # a variable without a scope
            group = key.partition("_encoder_")[0] + "_encoder" if "_encoder_" in key else "top_level_model_weights"
        groups.setdefault(group, {})[key] = array
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [group.encode() for group in groups]
        file.attrs["backend"] = b"tensorflow"
        for name, held in groups.items():
            group = file.create_group(name)
            names = np.array([key.encode() for key in held])
            group.attrs["weight_names"] = names[:0] if split else names
            for number, some in enumerate(np.array_split(names, 3) if split else []):
                group.attrs[f"weight_names{number}"] = some
            for key, array in held.items():
                group.create_dataset(key, data=array)


def _block(
    top: str, block: str, d_model: int, n_heads: int, kernel_size: int, expansion: int, dense: Iterator[str]
) -> list[tuple[str, tuple[int, ...]]]:
    first, third = f"{block}_layer1", f"{block}_layer3"
    size = d_model // n_heads
    attention = f"{top}/{block}/{first}/{first}_mhsa/{first}_mhsa_mhsa"
    conv = f"{top}/{block}/{third}/{third}_conv/{third}_conv"
    return [
        (f"{first}_mhsa_scale", (d_model,)),
        (f"{first}_mhsa_bias", (d_model,)),
        (f"{attention}/pos_kernel", (n_heads, d_model, size)),
        (f"{attention}/pos_bias_u", (n_heads, size)),
        (f"{attention}/pos_bias_v", (n_heads, size)),
        (f"{attention}/projection_kernel", (n_heads, size, d_model)),
        (f"{attention}/projection_bias", (d_model,)),
        *(array for _ in "qkv" for array in _dense(f"{attention}/{next(dense)}", d_model, d_model)),
        *_norm(f"{top}/{block}/{first}/{first}_ln_mid", d_model),
        *_feed_forward(f"{top}/{block}/{first}", first, d_model, expansion),
        *_norm(f"{top}/{block}/{first}/{first}_ln", d_model),
        (f"{third}_conv_scale", (d_model,)),
        (f"{third}_conv_bias", (d_model,)),
        (f"{conv}_pw_conv_1/kernel", (1, 1, d_model, 2 * d_model)),
        (f"{conv}_pw_conv_1/bias", (2 * d_model,)),
        (f"{conv}_dw_conv/depthwise_kernel", (kernel_size, 1, 2 * d_model, 1)),
        (f"{conv}_dw_conv/bias", (2 * d_model,)),
        *_norm(f"{conv}_bn", 2 * d_model),
        (f"{conv}_pw_conv_2/kernel", (1, 1, 2 * d_model, d_model)),
        (f"{conv}_pw_conv_2/bias", (d_model,)),
        *_norm(f"{top}/{block}/{third}/{third}_ln_mid", d_model),
        *_feed_forward(f"{top}/{block}/{third}", third, d_model, expansion),
        *_norm(f"{top}/{block}/{third}/{third}_ln", d_model),
    ]


def _feed_forward(scope: str, layer: str, d_model: int, expansion: int) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (f"{layer}_ff_scale", (d_model,)),
        (f"{layer}_ff_bias", (d_model,)),
        *_dense(f"{scope}/{layer}_ff/{layer}_ff_dense_1", d_model, expansion * d_model),
        *_dense(f"{scope}/{layer}_ff/{layer}_ff_dense_2", expansion * d_model, d_model),
    ]


def _dense(scope: str, inputs: int, outputs: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{scope}/kernel", (inputs, outputs)), (f"{scope}/bias", (outputs,))]


def _norm(scope: str, width: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{scope}/gamma", (width,)), (f"{scope}/beta", (width,))]


def _random(rng: np.random.Generator, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return gains near 1, or kernels that keep the variance. A missing branch then changes the output."""
    if key.endswith(("gamma", "moving_variance", "_scale")):
        made = rng.uniform(0.7, 1.3, shape)
    elif key.endswith("kernel"):
        inputs = float(np.prod(shape[:-2]) if "depthwise" in key else np.prod(shape) / shape[-1])
        if key.endswith("pos_kernel"):
            inputs = shape[1]
        made = rng.normal(0.0, inputs**-0.5, shape)
    else:
        made = rng.normal(0.0, 0.1, shape)
    return made.astype(np.float32)
