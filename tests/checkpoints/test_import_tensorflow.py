"""The authors' weight files are read completely and converted, or an error names the wrong array."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, linear
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.errors import UserError

pytest.importorskip("h5py", reason="h5py, which reads the authors' files, is not installed")
import h5py

from nemo_squeezeformer.checkpoints.tensorflow import Original, arrange, read
from tests.samples import original_weights
from tests.samples.encoders import features, valid

SMALL = {"d_model": 8, "n_layers": 3, "n_heads": 2, "conv_kernel_size": 5, "subsampling_conv_channels": 3}
ATTENTION = "block_1/conformer_encoder_block_1_layer1/conformer_encoder_block_1_layer1_mhsa/"
ATTENTION = f"conformer/conformer_encoder/conformer_encoder_{ATTENTION}conformer_encoder_block_1_layer1_mhsa_mhsa"
DISTINCT = re.compile(r"(?!.*block_[02]_)").match  # all arrays, but only one of the three blocks
RECOVERY = "conformer/conformer_encoder/dense/kernel:0"


def built(original: Original, **changes) -> SqueezeformerEncoder:
    encoder = SqueezeformerEncoder(**{**original.settings, **changes})
    encoder.load_state_dict(original.encoder)
    return encoder.eval()


@pytest.mark.parametrize("case", ["padded", "mod8", "short"])
def test_encoder_and_logits_equal_the_authors_code_in_a_batch_and_for_single_utterances(authors_run, case):
    original, found = read(authors_run / "squeezeformer-tiny.h5"), np.load(authors_run / f"{case}.npz")
    x, lengths = torch.from_numpy(found["features"]).transpose(1, 2), torch.from_numpy(found["length"]).long()
    expected = [torch.from_numpy(found[name]).transpose(1, 2) for name in ("encoder", "logits")]
    weight, bias = original.nemo_decoder()

    def outputs(encoder: SqueezeformerEncoder, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            encoded, encoded_lengths = encoder(x, lengths)
            logits = conv1d(encoded, weight, bias)
        assert (logits[:, 0] < -9000).all()
        blank_first = torch.cat([logits[:, -1:], logits[:, 1:-1]], dim=1)
        return encoded, blank_first, encoded_lengths

    encoder = built(original)
    *batch, encoded_lengths = outputs(encoder, x, lengths)
    assert_close(encoded_lengths, torch.from_numpy(found["logits_length"]).long())
    for ours, theirs in zip(batch, expected):
        assert_close(valid(ours, encoded_lengths), valid(theirs, encoded_lengths), atol=2e-5, rtol=0)
    for i, length in enumerate(lengths.tolist()):
        *alone, n = outputs(encoder, x[i : i + 1, :, :length], lengths[i : i + 1])
        for ours, theirs in zip(alone, expected):
            assert_close(valid(ours, n), valid(theirs[i : i + 1], n), atol=2e-5, rtol=0)

    encoded, *_ = outputs(built(original, variant="nemo"), x, lengths)  # control: the same weights in NeMo's network
    assert (valid(encoded, encoded_lengths) - valid(expected[0], encoded_lengths)).abs().max() > 1e-2


@pytest.mark.parametrize(
    "dimensions",
    [
        {"d_model": 24, "n_layers": 5, "n_heads": 3, "conv_kernel_size": 15, "ff_expansion_factor": 2},
        {"d_model": 16, "n_layers": 2, "n_heads": 1, "subsampling_conv_channels": 5, "feat_in": 40},
        {"d_model": 12, "n_layers": 3, "n_heads": 2, "vocabulary_size": 7, "depthwise_subsampling": False},
        {"d_model": 12, "n_layers": 4, "n_heads": 4, "temporal_unet": False},
    ],
)
def test_dimensions_are_read_from_the_shapes(tmp_path, dimensions):
    original_weights.write(tmp_path / "any.h5", **dimensions)
    original = read(tmp_path / "any.h5")
    dimensions = {"subsampling_conv_channels": dimensions["d_model"], **dimensions}
    subsampling = "dw_striding" if dimensions.pop("depthwise_subsampling", True) else "striding"
    unet, last = dimensions.pop("temporal_unet", True), dimensions["n_layers"] - 1
    assert original.vocabulary_size == dimensions.pop("vocabulary_size", 128)
    assert original.settings["subsampling"] == subsampling
    assert original.settings.items() >= dimensions.items()
    expected = (last // 2, last) if unet else (None, None)
    assert (original.settings["time_reduce_idx"], original.settings["time_recovery_idx"]) == expected
    encoder = built(original)
    trained = sum(weight.numel() for weight in encoder.parameters())
    assert trained + original.logits_weight.numel() + original.logits_bias.numel() == sum(
        array.size for name, array in original_weights.arrays(**dimensions_of(original)).items() if "moving" not in name
    )
    with torch.no_grad():
        output, _ = encoder(features(1, 30, original.settings["feat_in"]), torch.tensor([30]))
    assert output.isfinite().all()


def dimensions_of(original: Original) -> dict:
    settings = original.settings
    same = ("d_model", "n_layers", "n_heads", "conv_kernel_size", "ff_expansion_factor", "feat_in")
    return {
        **{name: settings[name] for name in (*same, "subsampling_conv_channels")},
        "vocabulary_size": original.vocabulary_size,
        "temporal_unet": settings["time_reduce_idx"] is not None,
        "depthwise_subsampling": settings["subsampling"] == "dw_striding",
    }


def test_every_layer_computes_the_same_as_its_array_in_keras(tmp_path):
    arrays = original_weights.write(tmp_path / "any.h5", **SMALL)
    state = read(tmp_path / "any.h5").encoder
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))

    def array(end: str) -> Tensor:
        (found,) = [value for name, value in arrays.items() if name.endswith(end)]
        return torch.from_numpy(found)

    dense = array(f"{ATTENTION}/dense_4/kernel:0")  # the second dense layer of block 1: the key
    assert_close(linear(x, state["layers.1.self_attn.linear_k.weight"]), x @ dense)
    positions = torch.einsum("bti,hio->btho", x, array(f"{ATTENTION}/pos_kernel:0")).flatten(2)
    assert_close(linear(x, state["layers.1.self_attn.linear_pos.weight"]), positions)
    heads = torch.einsum("bthi,hio->bto", x.unflatten(2, (2, 4)), array(f"{ATTENTION}/projection_kernel:0"))
    assert_close(linear(x, state["layers.1.self_attn.linear_out.weight"]), heads)
    bands = torch.randn(
        2, 5, 20, 3, generator=torch.Generator().manual_seed(1)
    )  # 20 bands after the subsampling of 80 bands, 3 channels
    projected = bands.flatten(2) @ array("encoder_linear/kernel:0")
    assert_close(linear(bands.transpose(2, 3).flatten(2), state["pre_encode.out.weight"]), projected)
    window = torch.randn(16, 5, generator=torch.Generator().manual_seed(2))
    kernel = array("block_2_layer3_conv_dw_conv/depthwise_kernel:0")
    together = torch.einsum("kc,ck->c", kernel[:, 0, :, 0], window)
    assert_close((state["layers.2.conv.depthwise_conv.weight"][:, 0] * window).sum(1), together)
    picture = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(3))  # time, band, channel
    halved = torch.einsum("tfc,tfc->c", array("subsampling_2_dw/depthwise_kernel:0")[..., 0], picture)
    assert_close((state["pre_encode.conv.2.weight"][:, 0] * picture.permute(2, 0, 1)).sum((1, 2)), halved)
    assert_close(linear(x, state["time_recovery_layer.weight"]), x @ array(RECOVERY))


def test_names_that_differ_between_files_do_not_matter(tmp_path):
    arrays = original_weights.write(tmp_path / "plain.h5", **SMALL)
    renamed = original_weights.write(tmp_path / "renamed.h5", name="my_linear", first_dense=54, **SMALL)
    assert not arrays.keys() & renamed.keys()
    assert "my_linear/my_linear_encoder/dense_63/kernel:0" in renamed
    original_weights.save(tmp_path / "split.h5", arrays, split=True)
    with h5py.File(tmp_path / "split.h5") as file:
        assert not len(file["conformer_encoder"].attrs["weight_names"])
    one, *others = (read(tmp_path / f"{name}.h5") for name in ("plain", "renamed", "split"))
    for other in others:
        assert other.settings == one.settings
        assert_close(other.encoder, one.encoder, rtol=0, atol=0)
        assert_close(other.logits_weight, one.logits_weight, rtol=0, atol=0)


def test_query_key_and_value_are_identified_by_their_order_and_not_by_numbers(tmp_path):
    arrays = original_weights.arrays(**SMALL)
    numbers = {"dense_3": "dense_12", "dense_4": "dense_9", "dense_5": "dense_2"}
    swapped = {
        re.sub(r"dense_[345](?=/)", lambda found: numbers[found[0]], name) if ATTENTION in name else name: array
        for name, array in arrays.items()
    }
    assert swapped.keys() != arrays.keys()
    original_weights.save(tmp_path / "plain.h5", arrays)
    original_weights.save(tmp_path / "swapped.h5", swapped)
    assert_close(read(tmp_path / "swapped.h5").encoder, read(tmp_path / "plain.h5").encoder, rtol=0, atol=0)


def test_a_file_of_a_whole_keras_model_is_accepted(tmp_path):
    original_weights.write(tmp_path / "weights.h5", **SMALL)
    with h5py.File(tmp_path / "weights.h5") as weights, h5py.File(tmp_path / "whole.h5", "w") as whole:
        weights.copy(weights["/"], whole, "model_weights")
        whole["optimizer_weights/adam/m:0"] = np.zeros(3)
    assert_close(read(tmp_path / "whole.h5").encoder, read(tmp_path / "weights.h5").encoder)


def test_the_blank_moves_to_the_end_and_piece_0_is_never_output(tmp_path):
    original_weights.write(tmp_path / "any.h5", vocabulary_size=6, **SMALL)
    original = read(tmp_path / "any.h5")
    weight, bias = original.nemo_decoder()
    encoded = features(1, 9, 8)
    theirs = conv1d(encoded, original.logits_weight, original.logits_bias).log_softmax(1)
    ours = conv1d(encoded, weight, bias).log_softmax(1)
    assert ours.size(1) == 7 and ours[:, 0].max() < -9000
    assert_close(torch.cat([ours[:, 6:], ours[:, 1:6]], dim=1), theirs)


def complaint(arrays: dict, **indices: int) -> str:
    with pytest.raises(UserError) as stopped:
        arrange({name: torch.from_numpy(array) for name, array in arrays.items()}, **indices)
    return str(stopped.value)


def test_an_array_that_is_missing_is_named():
    whole = original_weights.arrays(**SMALL)
    for name in filter(DISTINCT, whole):
        said = complaint({other: array for other, array in whole.items() if other != name})
        if "/dense" in name:  # another array of its layer exists, or the following layers are taken for it
            assert said.startswith(f"{name.partition('/dense')[0]}/") and "identified by order and place" in said
        else:
            assert said.startswith(f"{name if '/' in name else name.removesuffix(':0')}: not in the file")


def test_an_array_of_another_shape_is_named():
    whole = original_weights.arrays(**SMALL)
    assert arrange({name: torch.from_numpy(array) for name, array in whole.items()}).vocabulary_size == 128
    for name, array in ((name, whole[name]) for name in filter(DISTINCT, whole)):
        for shape in {
            (*array.shape, 1),
            (*array.shape[:-1], array.shape[-1] + 1),
            (array.shape[0] + 1, *array.shape[1:]),
        }:
            if name.endswith(("linear/kernel:0", "logits/kernel:0")) and len(shape) == array.ndim:
                continue  # only these arrays contain the number of features and the number of outputs
            said = complaint({**whole, name: np.zeros(shape, np.float32)})
            assert said.startswith(f"{name} has the shape {shape}; the other arrays require "), said


def test_widths_that_do_not_match_are_named():
    def said(**dimensions) -> str:
        return complaint(original_weights.arrays(**{**SMALL, **dimensions}))

    assert "conv_dw_conv/depthwise_kernel:0: the kernel size 6 is even" in said(conv_kernel_size=6)
    assert "encoder_preln/gamma:0: the width is 9" in said(d_model=9, n_heads=3)
    assert "mhsa_mhsa/pos_kernel:0: 3 heads of width 2 do not make the width 8" in said(n_heads=3)
    whole = original_weights.arrays(**SMALL)
    linear_kernel = "conformer/conformer_encoder/conformer_encoder_linear/kernel:0"
    assert f"{linear_kernel}: 61 rows" in complaint({**whole, linear_kernel: np.zeros((61, 8), np.float32)})
    logits = "conformer/conformer_logits/kernel:0"
    assert "logits/bias:0 has the shape (128,)" in complaint({**whole, logits: np.zeros((1, 8, 9), np.float32)})


def test_an_additional_array_is_named():
    whole = original_weights.arrays(**SMALL)
    extra = np.zeros(8, np.float32)
    for name in (
        "conformer/accumulate_step:0",
        "conformer/conformer_encoder/dense_7/bias:0",
        f"{ATTENTION}/dense_99/bias:0",
        f"{ATTENTION}/scale:0",
        "conformer/conformer_encoder/conformer_encoder_subsampling/conformer_encoder_subsampling_2/bias:0",
        "conformer_encoder_block_1_layer1_mhsa_gain:0",
    ):
        assert complaint({**whole, name: extra}).startswith(f"{name}")
    twin = RECOVERY.replace("conformer/", "conformer_1/", 1)
    assert "dense/bias:0" in complaint({**whole, twin.replace("kernel", "bias"): extra})


@pytest.mark.parametrize(
    "change, message",
    [
        (("layer1_mhsa_scale:0", "layer1_mhsa_ln/gamma:0"), "encoder_adaptive_scale: false"),
        (("preln/gamma:0", "block_2_ln/gamma:0"), "encoder_no_post_ln: false"),
        (("layer3_conv_pw_conv_1/", "layer3_pw_conv_1/"), "encoder_fixed_arch"),
    ],
)
def test_other_networks_of_the_authors_code_are_recognized(change, message):
    arrays = original_weights.arrays(**SMALL)
    assert message in complaint({name.replace(*change): array for name, array in arrays.items()})


def test_gated_convolutions_are_recognized():
    halves = ("dw_conv/bias", "bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance")
    arrays = {
        name: array[..., :8, :] if re.search(r"layer3.*(dw_conv/depthwise_kernel|pw_conv_2/kernel)", name)
        else array[:8] if name.endswith(tuple(f"{half}:0" for half in halves)) and "layer3" in name else array
        for name, array in original_weights.arrays(**SMALL).items()
    }  # fmt: skip
    assert "encoder_conv_use_glu: true" in complaint(arrays)


def test_the_layers_at_half_the_frame_rate_can_be_chosen(tmp_path):
    original_weights.write(tmp_path / "any.h5", **{**SMALL, "n_layers": 6})
    x, lengths = features(1, 40, 80), torch.tensor([40])
    outputs = {}
    for reduce, recover in ((None, None), (2, 5), (1, 4)):
        original = read(tmp_path / "any.h5", reduce, recover)
        with torch.no_grad():
            outputs[reduce, recover], _ = built(original)(x, lengths)
    assert_close(outputs[None, None], outputs[2, 5], rtol=0, atol=0)
    assert (outputs[1, 4] - outputs[2, 5]).abs().max() > 1e-2
    arrays = original_weights.arrays(**SMALL)
    assert "time_reduce_idx=2, time_recovery_idx=1" in complaint(arrays, time_reduce_idx=2, time_recovery_idx=1)
    assert "time_recovery_idx=3" in complaint(arrays, time_recovery_idx=3)
    full_rate = original_weights.arrays(temporal_unet=False, **SMALL)
    assert "neither time reduction nor recovery" in complaint(full_rate, time_reduce_idx=1)
    no_recovery = {
        name: array for name, array in arrays.items() if not name.startswith(RECOVERY.removesuffix("kernel:0"))
    }
    assert "conformer_encoder_recovery/kernel" in complaint(no_recovery)


def test_files_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "any.h5"

    def said() -> str:
        with pytest.raises(UserError) as stopped:
            read(path)
        return str(stopped.value)

    assert f"there is no file {path}" in said()
    path.write_bytes(b"PK a zip file, perhaps")
    assert "is not an HDF5 file" in said()
    arrays = original_weights.write(path, **SMALL)
    path.write_bytes(path.read_bytes()[:-100])
    assert "check that the file is complete" in said()
    with h5py.File(path, "w") as file:
        file.create_group("layers/dense/vars")["0"] = np.zeros(3)  # the layout of Keras 3
    assert "names no arrays in weight_names" in said()
    for name, value in {RECOVERY: np.nan, f"{ATTENTION}/pos_bias_u:0": np.inf}.items():
        original_weights.save(path, {**arrays, name: np.full_like(arrays[name], value)})
        assert name in (text := said()) and "not finite" in text
    original_weights.save(path, {**arrays, RECOVERY: arrays[RECOVERY].astype(np.int32)})
    assert RECOVERY in said()
    original_weights.save(path, arrays)
    with h5py.File(path, "a") as file:
        file["conformer_encoder/loose"] = np.zeros(3)
    assert "/conformer_encoder/loose" in said()
    with h5py.File(path, "a") as file:
        del file["conformer_encoder/loose"], file[f"conformer_encoder/{RECOVERY}"]
    assert f"{RECOVERY} is listed in weight_names" in said()
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'nemo-squeezeformer[tensorflow]'" in said()


@pytest.mark.slow
def test_reading_needs_no_nemo(tmp_path):
    original_weights.write(tmp_path / "any.h5", **SMALL)
    program = (
        "import sys; from nemo_squeezeformer.checkpoints.tensorflow import read\n"
        f"read({str(tmp_path / 'any.h5')!r})\n"
        "assert not {'nemo', 'lightning', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
