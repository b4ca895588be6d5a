"""Tests of the subsampling in pieces. test_nemo_modules.py compares causal subsampling with NeMo's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from nemo_squeezeformer.core.dispatch import only_equations
from nemo_squeezeformer.core.frames.margins import CAUSAL, CENTRED, ENDLESS, STREAMED
from nemo_squeezeformer.core.kernels import subsampling_pieces
from nemo_squeezeformer.core.kernels.subsampling_pieces import in_steps, projection
from nemo_squeezeformer.core.subsampling import build_subsampling
from tests.samples.encoders import enliven, features, small_encoder, valid


@pytest.mark.parametrize("parts", [-1, 1, 2, 8])
def test_parts_of_a_batch_change_nothing(parts):
    batch, lengths = features(5, 41), torch.tensor([41, 3, 40, 22, 9])
    expected, _ = small_encoder()(batch, lengths)
    output, lengths = small_encoder(subsampling_conv_chunking_factor=parts)(batch, lengths)
    assert_close(valid(output, lengths), valid(expected, lengths), atol=1e-5, rtol=0)


def gradients(output: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    onto = torch.linspace(-1.0, 1.0, output.numel()).view_as(output)
    return torch.autograd.grad(output, given, onto)


@pytest.mark.parametrize(
    "margins", [CENTRED, STREAMED, CAUSAL, ENDLESS], ids=["centred", "streamed", "causal", "endless"]
)
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("kind", ["dw_striding", "striding"])
def test_pieces_of_time_equal_the_whole_input_with_their_gradients(kind, factor, margins, monkeypatch):
    net = build_subsampling(kind, 13, 16, factor, 8, margins)
    enliven(net)
    for t, frames in ((1, 8), (7, 8), (32, 8), (33, 16), (64, 24), (65, 256)):
        monkeypatch.setattr(subsampling_pieces, "FRAMES", frames // torch.get_num_threads())
        lengths = torch.tensor([t, max(1, t // 2), max(1, t - 3)])
        x = features(3, t, 13).transpose(1, 2)
        x = x.masked_fill(torch.arange(t)[:, None] >= lengths[:, None, None], float("nan")).requires_grad_()
        with only_equations():
            expected, shorter = net(x, lengths)
        output, output_lengths = net(x, lengths)
        wanted = gradients(expected, x, *net.parameters())
        given = net.continued(x, lengths) if margins.endless else x
        masked = in_steps(  # as on a GPU
            net, given[:, None], lengths, output.size(1), output.size(1), max(frames // factor, 1), projection(net)
        )
        assert output_lengths.tolist() == shorter.tolist()
        for made in (output, torch.cat(list(masked), dim=1)):
            assert_close(made, expected, atol=1e-6, rtol=0)
            for gradient, other in zip(gradients(made, x, *net.parameters()), wanted):
                assert_close(gradient, other, atol=1e-4, rtol=1e-5)
        with torch.inference_mode():
            assert_close(net(x.detach(), lengths)[0], expected.detach(), atol=1e-6, rtol=0)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest new tensor."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.elements = max(self.elements, output.numel())
        return output


def test_no_tensor_holds_the_whole_output_of_the_first_convolution():
    net = build_subsampling("dw_striding", 20, 16, 4, 32)
    t = 20 * subsampling_pieces.FRAMES * torch.get_num_threads()
    x, lengths = torch.randn(1, t, 20), torch.tensor([t])
    with torch.inference_mode(), Largest() as whole, only_equations():
        net(x, lengths)
    with torch.inference_mode(), Largest() as pieces:
        net(x, lengths)
    assert whole.elements >= t // 2 * 10 * 32
    assert pieces.elements <= x.numel()


def test_training_keeps_only_the_output_of_the_convolutions():
    net = build_subsampling("dw_striding", 20, 16, 4, 32)
    x, lengths = torch.randn(2, 250, 20), torch.tensor([250, 200])

    def kept(run):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: sizes.append(kept.numel()) or kept, lambda kept: kept
        ):
            output = run()
        assert output.requires_grad
        return sum(sizes)

    assert kept(lambda: net(x, lengths)[0]) <= x.numel() + 2 * 63 * 5 * 32 + net.out.weight.numel()
    with only_equations():
        assert kept(lambda: net(x, lengths)[0]) > 2 * 125 * 10 * 32


def test_layers_that_are_not_plain_are_called_in_pieces():
    net = build_subsampling("dw_striding", 20, 16, 4, 8)
    x, lengths = torch.randn(2, 40, 20), torch.tensor([40, 31])
    before, _ = net(x, lengths)
    for module in (net.conv[3], net.out):
        module.register_forward_hook(lambda module, args, output: output + 1.0)
    with only_equations():
        expected, _ = net(x, lengths)
    assert_close(net(x, lengths)[0], expected, atol=1e-5, rtol=0)
    assert (before - expected).abs().max() > 0.5


@pytest.mark.parametrize("kind", ["dw_striding", "striding", "stacking", "stacking_norm"])
def test_causal_downsampling_is_independent_of_padding(kind):
    encoder = small_encoder(subsampling=kind, causal_downsampling=True, time_reduce_idx=1)
    for length in range(33, 41):
        alone = features(1, length)
        expected, expected_length = encoder(alone, torch.tensor([length]))
        batch = features(2, 64, seed=1)
        batch[1, :, :length] = alone
        batch[1, :, length:] = float("nan")
        output, lengths = encoder(batch, torch.tensor([64, length]))
        assert lengths[1] == expected_length[0]
        assert_close(valid(output[1:], lengths[1:]), valid(expected, expected_length), atol=1e-5, rtol=0)


def test_settings_that_do_not_fit_the_subsampling_are_refused():
    with pytest.raises(ValueError, match="leave out causal_downsampling"):
        small_encoder(streaming=True, causal_downsampling=True, att_context_size=[8, 3])
    with pytest.raises(ValueError, match="subsampling_conv_chunking_factor=3"):
        small_encoder(subsampling_conv_chunking_factor=3)
