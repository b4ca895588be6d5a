"""Optimised encoders that were pickled when queries, keys and values were one product."""

from __future__ import annotations

import pickle

from torch.testing import assert_close

from nemo_squeezeformer.core.attention import RelPositionAttention
from nemo_squeezeformer.core.cpu.linear import FastLinear
from nemo_squeezeformer.core.inference.old_classes import Rows
from tests.samples.encoders import features, small_encoder


def test_attention_of_an_old_class_gives_the_same_after_pickling():
    import torch

    expected, _ = small_encoder()(features(1, 61))
    encoder = small_encoder().optimize_for_inference()
    for layer in encoder.layers:
        attention = layer.self_attn
        linears = [attention.linear_q, attention.linear_k, attention.linear_v]
        whole = FastLinear(
            torch.cat([linear.weight for linear in linears]), torch.cat([linear.bias for linear in linears])
        )
        attention.linear_qkv = whole
        for i, name in enumerate(("linear_q", "linear_k", "linear_v")):
            rows = Rows()
            rows.whole, rows.first, rows.count = whole, 16 * i, 16
            setattr(attention, name, rows)
    old = b"nemo_squeezeformer.core.optimized.fused_attention\nFusedRelPositionAttention\n"
    assert pickle.loads(b"c" + old + b".") is RelPositionAttention
    assert_close(pickle.loads(pickle.dumps(encoder))(features(1, 61))[0], expected, atol=1e-5, rtol=0)
