"""Tests of the linear layers of an optimized encoder: products by another library, and cached projections."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.testing import assert_close

from nemo_squeezeformer.core.attention.positions import relative_encodings
from nemo_squeezeformer.core.cpu.linear import FEW, FastLinear, Rows, is_onednn_faster
from nemo_squeezeformer.core.cpu.projections import FastPointwise, TurnedProjection
from nemo_squeezeformer.core.inference.kept_positions import MOST, EncodingTable, KeptLinear

ROUNDING = 1e-5  # float32 sums in another order
needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="no oneDNN in this PyTorch"
)


pytestmark = pytest.mark.usefixtures("onednn")


def random(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_fast_linear_layer_equals_a_linear_layer_for_any_memory_layout(bias):
    plain = nn.Linear(12, 20, bias=bias)
    fast = FastLinear(plain.weight.detach(), plain.bias.detach() if bias else None)
    for x in (
        random(40, 12),
        random(2, 3, 40, 12),
        random(3, 12, 40).transpose(1, 2),
        random(2, 40, 24)[..., ::2],
        random(2, 40, 24)[..., 12:],
        random(1, 40, 12).expand(4, -1, -1),
        random(FEW - 1, 12),
        random(0, 12),
    ):
        with torch.no_grad():
            assert_close(fast(x), plain(x), atol=ROUNDING, rtol=0)


@needs_onednn
def test_few_rows_other_dtypes_autocast_and_gradients_use_pytorchs_own_product():
    def packs(x: Tensor, layer: FastLinear) -> bool:
        layer = copy.deepcopy(layer)
        layer(x)
        return layer.packed is not None

    fast = FastLinear(random(20, 12), None)
    assert packs(random(FEW, 12), fast)
    assert not packs(random(FEW - 1, 12), fast)
    assert not packs(random(FEW, 12).double(), copy.deepcopy(fast).double())
    assert not packs(random(FEW, 12).requires_grad_(), fast)
    with torch.autocast("cpu", torch.bfloat16):
        assert not packs(random(FEW, 12), fast)


@needs_onednn
def test_converted_weights_are_packed_again():
    fast, x = FastLinear(random(20, 12), None), random(40, 12)
    fast(x)
    fast.weight.data.mul_(2.0)
    converted = fast.double().float()
    assert_close(converted(x), linear(x, fast.weight), atol=ROUNDING, rtol=0)


def test_the_library_is_chosen_by_one_measurement_per_process():
    is_onednn_faster.cache_clear()
    assert is_onednn_faster() in (True, False)
    assert is_onednn_faster() is is_onednn_faster() and is_onednn_faster.cache_info().misses == 1


@pytest.mark.parametrize("bias", [True, False])
def test_rows_equal_a_slice_of_the_outputs(bias):
    whole, x = FastLinear(random(20, 12), random(20) if bias else None), random(2, 30, 12)
    assert_close(Rows(whole, 5, 7)(x), whole(x)[..., 5:12], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
@pytest.mark.parametrize("order", ["channels first", "channels last"])
def test_a_pointwise_convolution_is_a_product(kind, order):
    conv = kind(12, 20, kernel_size=1)
    x = random(3, 12, 30) if kind is nn.Conv1d else random(3, 12, 30, 5)
    if order == "channels last":
        x = x.transpose(1, -1).contiguous().transpose(1, -1)
    with torch.no_grad():
        fast = FastPointwise(conv.weight.flatten(1), conv.bias)
        assert_close(fast(x), conv(x), atol=ROUNDING, rtol=0)


def test_a_turned_projection_takes_both_memory_orders():
    plain, x = nn.Linear(6 * 4, 10), random(2, 30, 6, 4)  # 6 channels with 4 values each
    with torch.no_grad():
        turned = TurnedProjection(plain.weight, plain.bias, channels=6)
        expected = plain(x.flatten(2))
        assert_close(turned(x.flatten(2)), expected, atol=ROUNDING, rtol=0)
        assert_close(turned.channels_last(x.transpose(2, 3).flatten(2)), expected, atol=ROUNDING, rtol=0)


def test_encodings_of_a_short_range_are_rows_of_the_table():
    table, x = EncodingTable(), random(1, 1, 16)
    for first, last in ((0, 0), (9, -9), (63, -63), (64, -64), (300, -3), (2, -299), (70, -5), (MOST - 1, 1 - MOST)):
        assert_close(table(first, last, x), relative_encodings(first, last, x), atol=0, rtol=0)
        assert table.rows is not None and table.rows_of(table(first, last, x)) is table.rows
    assert table.rows.size(0) == 2 * MOST - 1
    beyond = table(MOST, 1 - MOST, x)
    assert_close(beyond, relative_encodings(MOST, 1 - MOST, x), atol=0, rtol=0)
    assert (
        table.rows.size(0) == 2 * MOST - 1 and table.rows_of(beyond) is None
    )  # the table does not grow beyond its limit
    assert table(3, -3, x.double()).dtype == torch.float64


def test_projections_are_kept_only_for_rows_of_the_table():
    table, weight, x = EncodingTable(), random(20, 16), random(1, 1, 16)
    layer = KeptLinear(weight, None, table)
    for first, last in ((40, -40), (12, -3), (3, -12), (100, -100), (MOST, -MOST)):
        positions = table(first, last, x)
        assert_close(layer(positions), linear(positions, weight), atol=ROUNDING, rtol=0)
    assert_close(layer(random(30, 16)), linear(random(30, 16), weight), atol=ROUNDING, rtol=0)
    before = layer(table(12, -3, x))
    layer.weight.zero_()
    layer.packed = None
    assert_close(layer(table(12, -3, x)), before, atol=0, rtol=0)  # the cached projection is used
    assert layer(table(12, -3, x) + 0.0).abs().max() == 0


def test_projections_kept_under_inference_mode_work_with_gradients_later():
    table, x = EncodingTable(), random(1, 1, 16)
    layer = KeptLinear(random(20, 16), None, table)
    with torch.inference_mode():
        layer(table(9, -9, x))
    q = random(5, 20).requires_grad_()
    (q @ layer(table(5, -5, x)).t()).sum().backward()
    assert q.grad is not None and q.grad.abs().min() > 0
