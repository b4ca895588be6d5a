"""The fast implementations of the core, how to disable each of them, and the work that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.attention.kernel import PlainKernel
from nemo_squeezeformer.core.attention.positions import relative_encodings
from nemo_squeezeformer.core.cpu import convolution, dropout, feed_forward
from nemo_squeezeformer.core.cpu.linear import FastLinear
from nemo_squeezeformer.core.dispatch import only_equations
from nemo_squeezeformer.core.inference import optimize
from nemo_squeezeformer.core.inference.kept_positions import EncodingTable
from nemo_squeezeformer.core.kernels import absorbed_attention, choice, pointwise, subsampling_pieces

SIZES: dict[str, dict[str, Any]] = {
    "s": {"n_layers": 18, "d_model": 196, "n_heads": 4, "time_reduce_idx": 8, "time_recovery_idx": 17},
    "quick": {"n_layers": 3, "d_model": 16, "n_heads": 2, "time_reduce_idx": 1, "time_recovery_idx": 2},
}
TRAINING: dict[str, Any] = {"dropout": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1}
STREAMING: dict[str, Any] = {"streaming": True, "att_context_size": [156, 11]}  # 480 ms
Without = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Work:
    """A kind of work: ``run`` with an encoder that is built with ``settings``.

    If ``optimised``, ``optimize_for_inference()`` runs first.
    """

    name: str
    run: Callable[[SqueezeformerEncoder, float], Callable[[], object]]
    seconds: float
    settings: dict[str, Any]
    optimised: bool = False
    trains: bool = False


@dataclass(frozen=True)
class Case:
    """A fast implementation. Without it, ``files`` in ``nemo_squeezeformer/core`` would not be needed."""

    name: str
    files: tuple[str, ...]
    work: tuple[str, ...]
    without: Without
    when_built: bool = False  # True: use ``without`` while the encoder is built. False: use it while the encoder works


def features(batch: int, seconds: float) -> tuple[Tensor, Tensor]:
    frames = round(100 * seconds)
    lengths = torch.linspace(frames / 2, frames, batch).round().long() if batch > 1 else torch.tensor([frames])
    return torch.randn(batch, 80, frames, generator=torch.Generator().manual_seed(0)), lengths


def inference(encoder: SqueezeformerEncoder, seconds: float) -> Callable[[], object]:
    x, lengths = features(1, seconds)

    @torch.inference_mode()
    def call() -> None:
        encoder(x, lengths)

    return call


def training(encoder: SqueezeformerEncoder, seconds: float) -> Callable[[], object]:
    x, lengths = features(4, seconds)

    def call() -> None:
        encoder.zero_grad(set_to_none=True)
        encoder(x, lengths)[0].square().mean().backward()

    return call


def stream(encoder: SqueezeformerEncoder, seconds: float) -> Callable[[], object]:
    x, _ = features(1, 0.48)
    state = encoder.init_state(1)

    @torch.inference_mode()
    def call() -> None:
        for _ in range(round(seconds / 0.48)):
            encoder(x, None, state)

    return call


WORK = {
    work.name: work
    for work in (
        Work("training step, batch of 4, up to 12 s", training, 12.0, TRAINING, trains=True),
        Work("inference, 15 s", inference, 15.0, {}),
        Work("inference, 60 s", inference, 60.0, {}),
        Work(
            "inference, 60 s, local attention",
            inference,
            60.0,
            {"self_attention_model": "rel_pos_local_attn", "att_context_size": [128, 128]},
        ),
        Work("streaming at 480 ms", stream, 4.8, STREAMING),
        Work("inference, 2 s, optimized encoder", inference, 2.0, {}, optimised=True),
        Work("inference, 5 s, optimized encoder", inference, 5.0, {}, optimised=True),
        Work("inference, 15 s, optimized encoder", inference, 15.0, {}, optimised=True),
        Work("inference, 60 s, optimized encoder", inference, 60.0, {}, optimised=True),
        Work("streaming at 480 ms, optimized encoder", stream, 4.8, STREAMING, optimised=True),
    )
}


def unregistered(*functions: Callable[..., object]) -> Without:
    """Return a context manager that disables the implementations that compute with ``functions``."""
    return lambda: only_equations(but=lambda found: found.compute not in functions)


def patched(owner: object, name: str, value: object) -> Without:
    return lambda: patch.object(owner, name, value)


@contextmanager
def every_kernel_written_out() -> Iterator[None]:
    with patch.object(choice, "AUTO", PlainKernel()):
        yield


@contextmanager
def windows_at_once() -> Iterator[None]:
    with patch.object(choice, "WINDOWS", choice.WINDOWS.gradients):
        yield


@contextmanager
def unfolded() -> Iterator[None]:
    with patch.multiple(optimize, _fold_scale=lambda *given: None, _fold_norm=lambda conv: None):
        yield


@contextmanager
def unfused() -> Iterator[None]:
    with patch.object(optimize, "fuse_projections", lambda attention: None):
        yield


@contextmanager
def positions_encoded_anew() -> Iterator[None]:
    with patch.object(optimize, "EncodingTable", EncodedAnew):
        yield


@contextmanager
def none_of_three() -> Iterator[None]:
    with unfolded(), unfused(), positions_encoded_anew():
        yield


class EncodedAnew(EncodingTable):
    """An encoding table that stores nothing and computes the encodings in every call."""

    def __call__(self, first: int, last: int, x: Tensor) -> Tensor:
        return relative_encodings(first, last, x)


TRAIN, STREAM = "training step, batch of 4, up to 12 s", "streaming at 480 ms"
CASES = (
    Case("feed-forward module", ("cpu/feed_forward.py",), (TRAIN,), unregistered(feed_forward.train_feed_forward)),
    Case(
        "convolution module",
        ("cpu/convolution.py", "cpu/depthwise.py"),
        (TRAIN,),
        unregistered(convolution.train_convolution),
    ),
    Case("dropout", ("cpu/dropout.py", "cpu/random_masks.py"), (TRAIN,), unregistered(dropout.train_dropout)),
    Case(
        "pointwise convolution as a matrix product",
        ("kernels/pointwise.py",),
        (TRAIN, "inference, 15 s"),
        unregistered(pointwise.pointwise_as_product),
    ),
    Case(
        "subsampling in pieces",
        ("kernels/subsampling_pieces.py",),
        (TRAIN, "inference, 15 s", "inference, 60 s"),
        unregistered(subsampling_pieces.subsample_in_pieces),
    ),
    Case(
        "attention in blocks, with scores recomputed in training",
        ("kernels/query_blocks.py", "kernels/recomputed_attention.py"),
        (TRAIN, "inference, 15 s", "inference, 60 s"),
        every_kernel_written_out,
        when_built=True,
    ),
    Case(
        "local attention, one window at a time",
        ("kernels/window_blocks.py",),
        ("inference, 60 s, local attention",),
        windows_at_once,
        when_built=True,
    ),
    Case(
        "attention of a stream without projected keys and values",
        ("kernels/absorbed_attention.py",),
        (STREAM,),
        unregistered(absorbed_attention.absorbed_attention),
    ),
    Case(
        "folded weights of scales and norms",
        ("inference/folding.py",),
        ("inference, 5 s, optimized encoder", "streaming at 480 ms, optimized encoder"),
        unfolded,
        when_built=True,
    ),
    Case(
        "fused projections of queries, keys and values",
        ("inference/fused_projections.py",),
        ("inference, 5 s, optimized encoder", "inference, 60 s, optimized encoder"),
        unfused,
        when_built=True,
    ),
    Case(
        "cached position encodings",
        ("inference/kept_positions.py",),
        ("inference, 5 s, optimized encoder", "inference, 15 s, optimized encoder"),
        positions_encoded_anew,
        when_built=True,
    ),
    Case(
        "folded weights, fused projections and cached position encodings together",
        ("inference/folding.py", "inference/fused_projections.py", "inference/kept_positions.py"),
        ("inference, 2 s, optimized encoder", "inference, 5 s, optimized encoder"),
        none_of_three,
        when_built=True,
    ),
    Case(
        "matrix products by oneDNN with packed weights",
        ("cpu/linear.py", "cpu/projections.py"),
        ("inference, 15 s, optimized encoder", "inference, 60 s, optimized encoder"),
        patched(FastLinear, "is_for_onednn", lambda self, x: False),
    ),
    Case(
        "attention, one head at a time",
        ("inference/head_blocks.py",),
        ("inference, 60 s, optimized encoder",),
        patched(optimize, "by_heads", lambda kernel: kernel),
        when_built=True,
    ),
)
NOTHING: Without = nullcontext
