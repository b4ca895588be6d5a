"""Tests that the transducer losses by anti-diagonals equal NeMo's losses, in their values and gradients."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from nemo.collections.asr.losses.rnnt_pytorch import RNNTLossPytorch, TDTLossPytorch
from nemo.collections.asr.parts.numba.rnnt_loss import RNNTLossNumba
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.integration.losses.lattice import log_likelihood
from nemo_squeezeformer.integration.losses.tdt import AntiDiagonalTDTLoss
from nemo_squeezeformer.integration.losses.transducer import AntiDiagonalTransducerLoss

BLANK = 4  # also the number of tokens
DURATIONS = [0, 1, 2, 3, 4]
SIZES = pytest.mark.parametrize("frames, tokens", [(1, 1), (7, 3), (4, 6), (2, 0), (1, 5)])
Batch = dict[str, Tensor]


@pytest.fixture
def nemo_on_a_cpu(monkeypatch) -> None:
    """NeMo's TDT loss in PyTorch calls cuda() without need, and computes in float32."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)


def batch(frames: int, tokens: int, outputs: int = BLANK + 1, dtype: torch.dtype = torch.float32) -> Batch:
    """Return a batch with an utterance of full length, a shorter utterance, and one frame without tokens."""
    generator = torch.Generator().manual_seed(frames + 10 * tokens)
    return {
        "acts": 2 * torch.randn(3, frames, tokens + 1, outputs, generator=generator, dtype=dtype),
        "labels": torch.randint(BLANK, (3, tokens), generator=generator),
        "act_lens": torch.tensor([frames, max(1, frames - 2), 1]),
        "label_lens": torch.tensor([tokens, max(0, tokens - 1), 0]),
    }


def losses_and_gradient(loss: nn.Module, given: Batch) -> tuple[Tensor, Tensor]:
    """Return the losses, and the gradient of a weighted sum of the losses."""
    acts = given["acts"].clone().requires_grad_()
    losses = loss(**given | {"acts": acts})
    (gradient,) = torch.autograd.grad((losses * torch.tensor([1.0, 2.0, 3.0])).sum(), acts)
    return losses.detach(), gradient


def every_path(given: Batch, row: int, durations: list[int] | None = None) -> Tensor:
    """Return the loss of an utterance as the sum over all paths, one path at a time."""
    t, u = int(given["act_lens"][row]), int(given["label_lens"][row])
    acts = given["acts"][row]
    tokens = acts[..., : BLANK + 1].log_softmax(-1)
    skips = acts[..., BLANK + 1 :].log_softmax(-1)

    def paths(at: int, said: int) -> list[Tensor]:
        if at == t:
            return [torch.zeros((), dtype=acts.dtype)] if said == u else []
        found = []
        for index, frames in enumerate(durations or [1]):
            skip = skips[at, said, index] if durations else 0.0
            if frames and at + frames <= t:
                found += [tokens[at, said, BLANK] + skip + rest for rest in paths(at + frames, said)]
            forward = frames if durations else 0
            if said < u and at + forward < t:
                token = tokens[at, said, given["labels"][row, said]] + skip
                found += [token + rest for rest in paths(at + forward, said + 1)]
        return found

    return -torch.stack(paths(0, 0)).logsumexp(0)


@SIZES
def test_the_transducer_loss_equals_nemos_loss_in_pytorch(frames, tokens):
    given = batch(frames, tokens)
    ours = losses_and_gradient(AntiDiagonalTransducerLoss(BLANK), given)
    assert_close(ours, losses_and_gradient(RNNTLossPytorch(BLANK, None), given))


@pytest.mark.parametrize(
    "settings", [{}, {"fastemit_lambda": 0.3}, {"clamp": 0.1}, {"fastemit_lambda": 0.3, "clamp": 0.1}]
)
@pytest.mark.parametrize("frames, tokens", [(1, 1), (5, 3)])
def test_the_transducer_loss_equals_nemos_loss_with_fastemit_and_clamp(frames, tokens, settings):
    given = batch(frames, tokens)
    ours = losses_and_gradient(AntiDiagonalTransducerLoss(BLANK, **settings), given)
    assert_close(ours, losses_and_gradient(RNNTLossNumba(BLANK, None, **settings), given))
    for setting in settings:
        without = {name: value for name, value in settings.items() if name != setting}
        assert not torch.allclose(losses_and_gradient(AntiDiagonalTransducerLoss(BLANK, **without), given)[1], ours[1])


@SIZES
def test_the_tdt_loss_equals_nemos_loss_in_pytorch(frames, tokens, nemo_on_a_cpu):
    given = batch(frames, tokens, BLANK + 1 + len(DURATIONS))
    ours = losses_and_gradient(AntiDiagonalTDTLoss(BLANK, DURATIONS, sigma=0.02), given)
    assert_close(ours, losses_and_gradient(TDTLossPytorch(BLANK, DURATIONS, None, sigma=0.02), given))


@pytest.mark.parametrize("durations", [None, DURATIONS, [0, 1], [1, 2, 5]])
def test_the_losses_equal_the_sum_over_all_paths_in_float64(durations):
    given = batch(5, 3, BLANK + 1 + len(durations or []), torch.float64)
    loss = AntiDiagonalTDTLoss(BLANK, durations) if durations else AntiDiagonalTransducerLoss(BLANK)
    given["act_lens"][2] = 2
    ours, gradient = losses_and_gradient(loss, given)
    given["acts"].requires_grad_()
    expected = torch.stack([every_path(given, row, durations) for row in range(3)])
    assert_close(ours, expected.detach(), rtol=1e-12, atol=0)
    (all_paths,) = torch.autograd.grad((expected * torch.tensor([1.0, 2.0, 3.0])).sum(), given["acts"])
    assert_close(gradient, all_paths, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("durations", [[], DURATIONS])
def test_padding_does_not_change_the_loss_and_gets_no_gradient(durations):
    loss = AntiDiagonalTDTLoss(BLANK, durations, sigma=0.1) if durations else AntiDiagonalTransducerLoss(BLANK)
    given = batch(6, 4, BLANK + 1 + len(durations))
    losses, gradient = losses_and_gradient(loss, given)
    for row, (t, u) in enumerate(zip(given["act_lens"].tolist(), given["label_lens"].tolist())):
        assert gradient[row, :t, : u + 1].any()
        assert not gradient[row, t:].any() and not gradient[row, :, u + 1 :].any()
        given["acts"][row, t:], given["acts"][row, :, u + 1 :] = 100.0, -100.0
        given["labels"][row, u:] = BLANK  # NeMo's padding
    assert_close(losses_and_gradient(loss, given), (losses, gradient))


def test_fastemit_raises_only_the_gradient_of_the_tokens_of_tdt():
    given = batch(5, 3, BLANK + 1 + len(DURATIONS))
    losses, gradient = losses_and_gradient(AntiDiagonalTDTLoss(BLANK, DURATIONS), given)
    raised, early = losses_and_gradient(AntiDiagonalTDTLoss(BLANK, DURATIONS, fastemit_lambda=0.5), given)
    assert_close(raised, 1.5 * losses)  # as NeMo's kernels for CUDA report it
    assert_close(early[..., BLANK + 1 :], gradient[..., BLANK + 1 :])
    label = int(given["labels"][0, 0])
    assert early[0, 0, 0, label] < gradient[0, 0, 0, label] - 1e-4


def test_omega_is_the_probability_of_the_loss_without_durations():
    given = batch(5, 3, BLANK + 1 + len(DURATIONS))
    tokens = given | {"acts": given["acts"][..., : BLANK + 1]}
    plain, gradient = losses_and_gradient(AntiDiagonalTransducerLoss(BLANK), tokens)
    found, ours = losses_and_gradient(AntiDiagonalTDTLoss(BLANK, DURATIONS, sigma=0.02, omega=1.0), given)
    assert_close((found, ours[..., : BLANK + 1]), (plain, gradient))
    assert not ours[..., BLANK + 1 :].any()

    random.seed(0)
    often = AntiDiagonalTDTLoss(BLANK, DURATIONS, omega=0.25)
    without = [torch.equal(often(**given), plain) for _ in range(200)]
    assert 30 <= sum(without) <= 70


def test_an_utterance_without_a_path_has_an_infinite_loss_and_no_gradient():
    losses, gradient = losses_and_gradient(AntiDiagonalTDTLoss(BLANK, [1]), batch(2, 3, BLANK + 1 + 1))
    assert losses[0] == torch.inf and losses[2].isfinite()  # three tokens need more than two frames
    assert not gradient[0].any() and gradient[2].any() and gradient.isfinite().all()


def test_half_precision_is_computed_in_float32():
    given = batch(5, 3)
    half = given | {"acts": given["acts"].bfloat16()}
    losses, gradient = losses_and_gradient(AntiDiagonalTransducerLoss(BLANK), half)
    expected, exact = losses_and_gradient(AntiDiagonalTransducerLoss(BLANK), half | {"acts": half["acts"].float()})
    assert losses.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert_close(losses, expected)
    assert_close(gradient, exact.bfloat16())


def test_a_second_backward_pass_is_refused():
    given: dict[str, Any] = batch(3, 2)
    given["acts"].requires_grad_()
    loss = AntiDiagonalTransducerLoss(BLANK)(**given).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_the_probabilities_of_the_arcs_into_an_anti_diagonal_sum_to_one():
    given = batch(6, 4, dtype=torch.float64)
    scores = given["acts"].permute(3, 0, 1, 2)[:2].clone().requires_grad_()
    total = log_likelihood(scores, ((1, 0), (0, 1)), given["act_lens"], given["label_lens"])
    (arcs,) = torch.autograd.grad(total[0], scores)
    by_step = [sum(arcs[:, 0, t, d - t].sum() for t in range(6) if 0 <= d - t <= 4) for d in range(10)]
    assert_close(torch.stack(by_step), torch.ones(10, dtype=torch.float64))
