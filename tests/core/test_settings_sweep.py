"""A random sweep over the settings of the encoder: each combination is refused when it is built, or runs."""

from __future__ import annotations

import inspect
import random
from collections import Counter
from typing import Any

import pytest
import torch

from nemo_squeezeformer.core import SqueezeformerEncoder
from tests.samples.encoders import features

HUGE = 10**9
EDGES: list[Any] = [0, 1, -1, None, HUGE, "5", 1.5, True, float("nan"), [], [1, 2], "", {}, [None], -HUGE, "auto"]
SIZES = [
    [4, 3],
    [8, 1],
    [4, 0],
    [-1, -1],
    [-1, 3],
    [0, 0],
    [5, 2],
    [[4, 3], [8, 1]],
    [4, 4, 0],
    [8, 2, 2],
    [-1, -1, -1],
]
GOOD: dict[str, list[Any]] = {
    "feat_in": [1, 2, 3, 5, 8],
    "n_layers": [1, 2, 3],
    "d_model": [2, 4, 6],
    "feat_out": [-1, 3, 4],
    "subsampling": ["dw_striding", "striding", "stacking", "stacking_norm", None],
    "subsampling_factor": [1, 2, 3, 4, 8],
    "subsampling_conv_channels": [-1, 1, 4],
    "ff_expansion_factor": [1, 2],
    "self_attention_model": ["rel_pos", "abs_pos", "rel_pos_local_attn", "rope"],
    "n_heads": [1, 2],
    "att_context_size": [None, *SIZES],
    "xscaling": [True, False],
    "untie_biases": [True, False],
    "pos_emb_max_len": [5000, 1],
    "conv_kernel_size": [1, 3, 5, 7],
    "conv_norm_type": ["batch_norm", "layer_norm", "instance_norm", "fused_batch_norm", "group_norm2", "group_norm1"],
    "dropout": [0.0, 0.1, 1.0],
    "dropout_emb": [0.0, 0.1],
    "dropout_att": [0.0, 0.1, 1.0],
    "adaptive_scale": [True, False],
    "time_reduce_idx": ["auto", None, 0, 1, [0, 1], [0, 2]],
    "time_recovery_idx": [None, 1, 2, [2, 1], [1, 2]],
    "causal_downsampling": [False, True],
    "subsampling_conv_chunking_factor": [1, -1, 2, 4],
    "reduction": [None, "pooling"],
    "reduction_position": [None, 1],
    "reduction_factor": [1, 2],
    "att_context_probs": [None, [0.5, 0.5]],
    "att_chunk_context_size": [None, [[4, 8], [2, 4], [0, 2]]],
    "att_context_style": [None, "regular", "chunked_limited", "chunked_limited_with_rc"],
    "conv_context_size": [None, "causal", [2, 2], [4, 0], [2, 0]],
    "conv_context_style": ["regular", "dcc"],
    "use_bias": [True, False],
    "dropout_pre_encoder": [None, 0.0, 0.1],
    "global_tokens": [0, 1, 3],
    "global_tokens_spacing": [1, 4],
    "global_attn_separate": [False, True],
    "use_pytorch_sdpa": [False, True],
    "use_pytorch_sdpa_backends": [None, ["MATH"], ["FLASH_ATTENTION", "MATH"]],
    "attention": ["auto", "plain", "blocks", "sdpa"],
    "sync_max_audio_length": [True, False],
    "streaming": [False, True],
    "block": ["squeezeformer", "conformer", "mf_cf_glu", "mf_cf"],
    "stochastic_depth_drop_prob": [0.0, 0.5],
    "stochastic_depth_mode": ["linear", "uniform"],
    "stochastic_depth_start_layer": [1, 2],
    "gradient_checkpointing": [False, True],
    "compile": [False],  # a compilation takes seconds
    "variant": ["nemo", "original"],
    "rope_base": [10000.0, 100],
    "use_triton": [None, True, False],
    "rotary_fraction": [1.0, 0.5, 0.1],
    "deep_norm": [False, True],
}
REQUIRED: dict[str, Any] = {"feat_in": 5, "n_layers": 2, "d_model": 4, "n_heads": 2, "conv_kernel_size": 3}


def draw(seed: int) -> dict[str, Any]:
    """Return settings: a few good values that differ from the default, and an edge value in some of the draws."""
    dice = random.Random(seed)
    chosen = dice.sample(list(GOOD), dice.randint(1, 6))
    settings = REQUIRED | {name: dice.choice(GOOD[name]) for name in chosen}
    if settings.get("streaming"):
        settings |= {"att_context_size": [4, 3], "att_context_style": "chunked_limited", "conv_context_size": None}
    if dice.random() < 0.4:
        settings[dice.choice([name for name in GOOD if name != "compile"])] = dice.choice(EDGES)
    return settings


def run(kind: type[SqueezeformerEncoder], settings: dict[str, Any]) -> str:
    """Build and run an encoder, and return how far the settings came. An error after the construction is a failure."""
    try:
        encoder = kind(**settings)
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in GOOD), f"the error names no setting: {error}"
        return "refused"
    feat_in, kept = encoder.feat_in, encoder.dropout.p < 1.0
    for t in (1, 2, 7, 33):
        x, lengths = features(2, t, channels=feat_in), torch.tensor([t, (t + 1) // 2])
        for training in (True, False):
            y, n = core_forward(encoder.train(training), x, lengths)
            assert y.size(1) == encoder.feat_out and y.isfinite().all() and int(n.max()) <= y.size(2)
        y, _ = core_forward(encoder.train(), x, lengths)
        y.sum().backward()
        grads = [p.grad for p in encoder.parameters() if p.grad is not None]
        assert (grads or not kept) and all(grad.isfinite().all() for grad in grads)
    if not settings.get("streaming"):
        return "ran"
    try:
        state = encoder.eval().init_state(2)
    except ValueError as error:
        assert any(name in str(error) for name in GOOD), f"the error names no setting: {error}"
        return "ran"
    chunk = encoder.subsampling_factor * max(encoder.contexts.of(False).chunk, encoder.contexts.factor)
    for _ in range(2):
        y, _ = SqueezeformerEncoder.forward(encoder, features(2, min(chunk, 512), channels=feat_in), None, state)
        assert y.isfinite().all()
    return "streamed"


def core_forward(encoder: Any, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    named = "audio_signal" in inspect.signature(type(encoder).forward).parameters
    return encoder(audio_signal=x, length=lengths) if named else encoder(x, lengths)


def sweep(kind: type[SqueezeformerEncoder], seeds: range) -> Counter[str]:
    results: Counter[str] = Counter()
    failures: list[str] = []
    torch.manual_seed(0)
    for seed in seeds:
        settings = draw(seed)
        try:
            results[run(kind, settings)] += 1
        except Exception as error:
            failures.append(f"{seed} {settings}: {type(error).__name__}: {error}")
    assert not failures, f"{len(failures)} of {len(seeds)}:\n" + "\n".join(failures[:30])
    return results


def test_every_setting_of_the_encoder_is_in_the_sweep():
    assert set(GOOD) == set(inspect.signature(SqueezeformerEncoder.__init__).parameters) - {"self"}


def test_each_combination_is_refused_when_built_or_runs():
    results = sweep(SqueezeformerEncoder, range(60))
    assert min(results[kind] for kind in ("refused", "ran")) > 12


@pytest.mark.slow
def test_many_combinations_are_refused_when_built_or_run():
    results = sweep(SqueezeformerEncoder, range(60, 700))
    assert min(results[kind] for kind in ("refused", "ran", "streamed")) > 5


@pytest.mark.slow
def test_combinations_of_the_nemo_encoder_are_refused_when_built_or_run():
    nemo_squeezeformer = pytest.importorskip("nemo_squeezeformer")
    pytest.importorskip("nemo")
    results = sweep(nemo_squeezeformer.SqueezeformerEncoder, range(2000, 2150))
    assert min(results[kind] for kind in ("refused", "ran")) > 40


@pytest.mark.parametrize("value", [None, "5", 1.5, True, -5, 0, 10**9, [1], float("nan")])
@pytest.mark.parametrize(
    "name", ["feat_in", "n_layers", "d_model", "n_heads", "conv_kernel_size", "ff_expansion_factor"]
)
def test_a_wrong_number_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        SqueezeformerEncoder(**(REQUIRED | {name: value}))
