"""Tests of the consistency term of CR-CTC: a plain transcription of the paper's equation gives the same numbers."""

from __future__ import annotations

import pytest
import torch
from nemo.collections.asr.losses.ctc import CTCLoss
from torch import Tensor

from nemo_squeezeformer.integration.losses.consistency import consistency_of_rows, reduced

LENGTHS = torch.tensor([7, 4, 1, 7, 4, 1])  # three utterances, two views
TARGET_LENGTHS = torch.tensor([3, 2, 0, 3, 2, 0])


def logits(dtype: torch.dtype = torch.float64) -> Tensor:
    return (2 * torch.randn(6, 7, 5, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()


def equation(x: Tensor, stops: bool = True) -> Tensor:
    """Return L_CR of each utterance from a loop over frames and tokens: 1/2 sum_t [KL(q || p) + KL(p || q)]."""
    probabilities = x.softmax(-1)
    losses = []
    for utterance in range(3):
        loss = x.new_zeros(())
        for frame in range(int(LENGTHS[utterance])):
            p, q = probabilities[utterance, frame], probabilities[utterance + 3, frame]
            for target, predicted in ((q, p), (p, q)):
                target = target.detach() if stops else target
                for token in range(x.shape[-1]):
                    loss = loss + 0.5 * target[token] * (target[token].log() - predicted[token].log())
        losses.append(loss)
    return torch.stack(losses)


def test_values_and_gradients_are_those_of_the_equation():
    x, y = logits(), logits()
    term = reduced(consistency_of_rows(x.log_softmax(-1), LENGTHS), TARGET_LENGTHS, "mean_batch")
    expected = equation(y).mean()
    term.backward()
    expected.backward()
    torch.testing.assert_close(term.double(), expected, rtol=1e-5, atol=0)  # the term is computed in float32
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-6)
    assert term > 0.1


def test_without_a_stopped_gradient_the_value_is_equal_and_the_gradient_is_another():
    x, y = logits(), logits()
    stopped, other = equation(x).mean(), equation(y, stops=False).mean()
    torch.testing.assert_close(stopped, other)
    stopped.backward()
    other.backward()
    assert (x.grad - y.grad).abs().max() > 0.01


def test_padding_changes_nothing_and_gets_no_gradient():
    x = logits()
    y = x.detach().clone()
    for row, length in enumerate(LENGTHS):
        y[row, length:] = 100 * torch.randn(7 - int(length), 5)
    y.requires_grad_()
    term, other = (consistency_of_rows(each.log_softmax(-1), LENGTHS) for each in (x, y))
    torch.testing.assert_close(term, other, rtol=0, atol=0)
    other.sum().backward()
    for row, length in enumerate(LENGTHS):
        assert not y.grad[row, length:].any() and y.grad[row, :length].abs().min() > 0


def test_equal_views_have_no_term():
    x = logits().detach()
    x[3:] = x[:3]
    torch.testing.assert_close(consistency_of_rows(x.log_softmax(-1), LENGTHS), torch.zeros(6))


def test_bfloat16_is_computed_in_float32():
    x = logits(torch.bfloat16).log_softmax(-1)
    term = consistency_of_rows(x, LENGTHS)
    assert term.dtype == torch.float32
    torch.testing.assert_close(term, consistency_of_rows(x.float(), LENGTHS), rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["mean_batch", "mean_volume", "mean", "sum"])
def test_rows_are_reduced_as_the_ctc_loss_is_reduced(reduction):
    x = logits(torch.float32).detach().log_softmax(-1)
    targets, target_lengths = torch.randint(0, 4, (6, 3)), torch.tensor([3, 2, 1, 3, 2, 1])
    lengths = torch.tensor([7, 5, 3, 7, 5, 3])
    given = {"log_probs": x, "targets": targets, "input_lengths": lengths, "target_lengths": target_lengths}
    rows = CTCLoss(num_classes=4, reduction="none")(**given)
    expected = CTCLoss(num_classes=4, reduction=reduction)(**given)
    torch.testing.assert_close(reduced(rows, target_lengths, reduction), expected)
