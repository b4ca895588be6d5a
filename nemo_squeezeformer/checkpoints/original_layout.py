"""The mapping from the arrays of the authors' TensorFlow network to the weights of this package: names, shapes, axes.

The letters in the shapes are: D for the model width, E for the inner width of the convolution module, I for the inner
width of the feed-forward module, H for the number of heads, S for the width of a head, K for the kernel size, C for the
channels of the subsampling, W for the inputs of the linear layer of the subsampling (C channels times the number of
bands), and V for the outputs of the CTC layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

Layout = Callable[[Tensor, int], Tensor]


class Row(NamedTuple):
    """The mapping of one array of the file to one weight of this package.

    ``source`` is the name of the layer and the array in the file, without the name of the encoder. ``target`` is the
    key in the state dict. ``shape`` is the shape of the array in the letters of this module. ``layout(array, C)``
    returns the array in the layout of torch.
    """

    source: str
    target: str
    shape: tuple[str, ...]
    layout: Layout


def rows(n_layers: int, depthwise: bool, temporal_unet: bool) -> list[Row]:
    """Return one ``Row`` for each array of a network.

    A target that begins with ``logits`` belongs to the CTC layer. All other targets belong to the encoder.
    """
    return [
        *_subsampling(depthwise),
        *_norm("preln", "pre_ln"),
        *(row for layer in range(n_layers) for row in _block(f"block_{layer}", f"layers.{layer}")),
        *(_temporal_unet() if temporal_unet else ()),
        *_layer("logits", "logits", "1 D V", conv1d),
    ]


def as_it_is(x: Tensor, channels: int) -> Tensor:
    return x


def dense(x: Tensor, channels: int) -> Tensor:
    """Transpose the kernel of a dense layer: (in, out) -> (out, in)."""
    return x.T


def conv2d(x: Tensor, channels: int) -> Tensor:
    """Permute the kernel of a 2-D convolution: (height, width, in, out) -> (out, in, height, width)."""
    return x.permute(3, 2, 0, 1)


def depthwise2d(x: Tensor, channels: int) -> Tensor:
    """Permute the kernel of a 2-D depthwise convolution: (height, width, C, 1) -> (C, 1, height, width)."""
    return x.permute(2, 3, 0, 1)


def conv1d(x: Tensor, channels: int) -> Tensor:
    """Permute the kernel of a 1-D convolution: (kernel, in, out) -> (out, in, kernel)."""
    return x.permute(2, 1, 0)


def pointwise(x: Tensor, channels: int) -> Tensor:
    """Permute the kernel of a pointwise convolution: (1, 1, in, out) -> (out, in, 1)."""
    return x[0].permute(2, 1, 0)


def depthwise1d(x: Tensor, channels: int) -> Tensor:
    """Permute the kernel of a depthwise convolution over time: (kernel, 1, D, 1) -> (D, 1, kernel)."""
    return x[:, 0].permute(1, 2, 0)


def projection(x: Tensor, channels: int) -> Tensor:
    """Reorder the inputs of the linear layer of the subsampling: (bands * C, D) -> (D, C * bands).

    The authors' code orders the inputs by band first, and this package orders the inputs by channel first.
    """
    return x.reshape(-1, channels, x.size(1)).permute(2, 1, 0).flatten(1)


def heads_out(x: Tensor, channels: int) -> Tensor:
    """Convert a kernel whose outputs are heads to a linear weight: (H, D, S) -> (H * S, D)."""
    return x.transpose(1, 2).flatten(0, 1)


def heads_in(x: Tensor, channels: int) -> Tensor:
    """Convert a kernel whose inputs are heads to a linear weight: (H, S, D) -> (D, H * S)."""
    return x.flatten(0, 1).T


def _subsampling(depthwise: bool) -> Iterator[Row]:
    yield from _layer("subsampling_1", "pre_encode.conv.0", "3 3 1 C", conv2d)
    if depthwise:
        yield from _layer("subsampling_2_dw", "pre_encode.conv.2", "3 3 C 1", depthwise2d, width="C")
        yield from _layer("subsampling_2_pw", "pre_encode.conv.3", "1 1 C C", conv2d)
    else:
        yield from _layer("subsampling_2", "pre_encode.conv.2", "3 3 C C", conv2d)
    yield from _layer("linear", "pre_encode.out", "W D", projection)


def _block(block: str, layer: str) -> Iterator[Row]:
    first, third = f"{block}_layer1", f"{block}_layer3"
    yield from _scale(f"{first}_mhsa", f"{layer}.self_attn_scale")
    yield from _attention(f"{first}_mhsa_mhsa", f"{layer}.self_attn")
    yield from _norm(f"{first}_ln_mid", f"{layer}.norm_self_att")
    yield from _feed_forward(f"{first}_ff", f"{layer}.feed_forward1")
    yield from _norm(f"{first}_ln", f"{layer}.norm_feed_forward1")
    yield from _scale(f"{third}_conv", f"{layer}.conv_scale")
    yield from _convolution(f"{third}_conv", f"{layer}.conv")
    yield from _norm(f"{third}_ln_mid", f"{layer}.norm_conv")
    yield from _feed_forward(f"{third}_ff", f"{layer}.feed_forward2")
    yield from _norm(f"{third}_ln", f"{layer}.norm_feed_forward2")


def _attention(source: str, target: str) -> Iterator[Row]:
    yield Row(f"{source}/pos_kernel", f"{target}.linear_pos.weight", ("H", "D", "S"), heads_out)
    yield Row(f"{source}/pos_bias_u", f"{target}.pos_bias_u", ("H", "S"), as_it_is)
    yield Row(f"{source}/pos_bias_v", f"{target}.pos_bias_v", ("H", "S"), as_it_is)
    yield Row(f"{source}/projection_kernel", f"{target}.linear_out.weight", ("H", "S", "D"), heads_in)
    yield Row(f"{source}/projection_bias", f"{target}.linear_out.bias", ("D",), as_it_is)
    for name in "qkv":
        yield from _layer(f"{source}/{name}", f"{target}.linear_{name}", "D D", dense)


def _feed_forward(source: str, target: str) -> Iterator[Row]:
    yield from _scale(source, f"{target}_scale")
    yield from _layer(f"{source}_dense_1", f"{target}.linear1", "D I", dense)
    yield from _layer(f"{source}_dense_2", f"{target}.linear2", "I D", dense)


def _convolution(source: str, target: str) -> Iterator[Row]:
    yield from _layer(f"{source}_pw_conv_1", f"{target}.pointwise_conv1", "1 1 D E", pointwise)
    yield from _layer(f"{source}_dw_conv", f"{target}.depthwise_conv", "K 1 E 1", depthwise1d, width="E")
    yield from _norm(f"{source}_bn", f"{target}.batch_norm", width="E")
    yield Row(f"{source}_bn/moving_mean", f"{target}.batch_norm.running_mean", ("E",), as_it_is)
    yield Row(f"{source}_bn/moving_variance", f"{target}.batch_norm.running_var", ("E",), as_it_is)
    yield from _layer(f"{source}_pw_conv_2", f"{target}.pointwise_conv2", "1 1 E D", pointwise)


def _temporal_unet() -> Iterator[Row]:
    yield from _layer("timereduce_dw_conv", "time_reduce_layer.dw_conv", "5 1 D 1", depthwise1d, width="D")
    yield from _layer("timereduce_pw_conv_2", "time_reduce_layer.pw_conv", "1 1 D D", pointwise)
    yield from _layer("recovery", "time_recovery_layer", "D D", dense)


def _layer(source: str, target: str, shape: str, layout: Layout, width: str = "") -> Iterator[Row]:
    """Yield the rows of the kernel and the bias of a layer.

    ``width`` is the letter for the size of the bias. The default is the letter of the last axis of the kernel.
    """
    axes = tuple(shape.split())
    kernel = "depthwise_kernel" if axes[-1] == "1" else "kernel"
    yield Row(f"{source}/{kernel}", f"{target}.weight", axes, layout)
    yield Row(f"{source}/bias", f"{target}.bias", (width or axes[-1],), as_it_is)


def _norm(source: str, target: str, width: str = "D") -> Iterator[Row]:
    yield Row(f"{source}/gamma", f"{target}.weight", (width,), as_it_is)
    yield Row(f"{source}/beta", f"{target}.bias", (width,), as_it_is)


def _scale(source: str, target: str) -> Iterator[Row]:
    yield Row(f"{source}_scale", f"{target}.scale", ("D",), as_it_is)
    yield Row(f"{source}_bias", f"{target}.bias", ("D",), as_it_is)
