"""The encoder with ``variant="original"`` equals a copy of the authors' network and recorded outputs of their code."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv1d, ctc_loss

pytest.importorskip("h5py", reason="h5py, which reads the authors' files, is not installed")
import h5py

from nemo_squeezeformer.checkpoints.tensorflow import Original, read
from nemo_squeezeformer.core import SqueezeformerEncoder
from tests.samples.original_network import OriginalNetwork
from tests.samples.original_weights import save, write

TOLERANCE = 2e-5  # values are near 1, and float32 numbers are summed in another order
APART = 0.3  # least difference of another network with the same weights

# Widths, heads, kernels, depths and positions of the temporal U-Net. The first size is the smallest with all parts.
SIZES = {
    "small": dict(d_model=16, n_layers=3, n_heads=2, conv_kernel_size=5, reduce=1, recover=2),
    "recovers early": dict(d_model=24, n_layers=5, n_heads=8, conv_kernel_size=31, reduce=1, recover=3),
    "nothing inside": dict(d_model=16, n_layers=3, n_heads=2, conv_kernel_size=7, reduce=1, recover=1),
    "no temporal U-Net": dict(d_model=16, n_layers=2, n_heads=2, conv_kernel_size=5, reduce=None, recover=None),
    "other widths inside": dict(
        d_model=32, n_layers=2, n_heads=4, conv_kernel_size=9, reduce=0, recover=1,
        ff_expansion_factor=2, subsampling_conv_channels=8, vocabulary_size=29,
    ),
}  # fmt: skip
LENGTHS = {
    "all remainders of 8": [97, 98, 99, 100, 101, 102, 103, 104],
    "shorter than a kernel": [1, 2, 3, 4, 5, 6, 7, 8, 9],
    "far apart": [131, 64, 5, 300],
    "one of several pieces": [1093],
}


class Networks:
    """The authors' network and the encoder of this package with the same weights."""

    def __init__(self, directory: Path, reduce: int | None, recover: int | None, **dimensions):
        path = directory / "random.h5"
        self.arrays = write(path, temporal_unet=reduce is not None, **dimensions)
        self.original = OriginalNetwork(self.arrays, reduce, recover)
        self.checkpoint = read(path, time_reduce_idx=reduce, time_recovery_idx=recover)
        self.ours = encoder(self.checkpoint)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Return a function that returns the ``Networks`` of a size of ``SIZES``. Each size is built once."""
    made: dict[str, Networks] = {}

    def of(size: str) -> Networks:
        if size not in made:
            made[size] = Networks(tmp_path_factory.mktemp("original"), **SIZES[size])
        return made[size]

    return of


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("size", SIZES)
def test_the_encoder_equals_the_authors_network(networks, size, lengths):
    both, features = networks(size), random_features(lengths)
    expected, logits, expected_lengths = both.original(features, torch.tensor(lengths))
    assert_encoded(both.ours, features, lengths, expected)
    encoded, encoded_lengths = encode(both.ours, features, lengths)
    assert encoded_lengths.tolist() == expected_lengths.tolist()
    ours = conv1d(encoded, both.checkpoint.logits_weight, both.checkpoint.logits_bias).transpose(1, 2)
    assert_valid_equal(ours, logits, expected_lengths)


@pytest.mark.parametrize("size", ["small", "no temporal U-Net"])
def test_each_utterance_alone_equals_the_same_utterance_in_a_batch(networks, size):
    both, lengths = networks(size), [*range(1, 18), 98]
    features = random_features(lengths)
    expected, _, _ = both.original(features, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = features[row : row + 1, :length]
        assert_encoded(both.ours, alone, [length], expected[row : row + 1])
        unsaid, _ = both.ours(alone.transpose(1, 2))  # without lengths: all frames are valid
        assert_valid_equal(unsaid.transpose(1, 2), expected[row : row + 1], torch.tensor([(length + 3) // 4]))


def test_features_past_the_end_have_no_influence(networks):
    both, lengths = networks("small"), [61, 34, 12]
    features = random_features(lengths)
    expected, _ = encode(both.ours, features, lengths)
    for row, length in enumerate(lengths):
        features[row, length:] = float("nan")
    found, valid = encode(both.ours, features, lengths)
    assert_valid_equal(found.transpose(1, 2), expected.transpose(1, 2), valid)


@pytest.mark.parametrize("attention", ["plain", "blocks", "sdpa"])
def test_every_implementation_of_attention_equals_the_authors(networks, attention):
    both, lengths = networks("recovers early"), [131, 64, 5, 300]
    features = random_features(lengths)
    expected, _, _ = both.original(features, torch.tensor(lengths))
    assert_encoded(encoder(both.checkpoint, attention=attention), features, lengths, expected)


def test_the_optimized_encoder_equals_the_authors(networks):
    both, lengths = networks("recovers early"), [131, 64, 5, 300]
    features = random_features(lengths)
    expected, _, _ = both.original(features, torch.tensor(lengths))
    assert_encoded(copy.deepcopy(both.ours).optimize_for_inference(), features, lengths, expected)


def test_the_same_weights_in_nemos_network_give_another_output(networks):
    both, lengths = networks("small"), [131, 64, 5, 300]
    features = random_features(lengths)
    expected, _, _ = both.original(features, torch.tensor(lengths))
    found, valid = encode(encoder(both.checkpoint, variant="nemo"), features, lengths)
    assert furthest(found.transpose(1, 2), expected, valid) > APART


@pytest.mark.parametrize("size", ["small", "no temporal U-Net"])
def test_gradients_equal_the_gradients_in_the_authors_network(networks, size, tmp_path):
    both, lengths = networks(size), torch.tensor([41, 38, 6, 23])
    original = OriginalNetwork(both.arrays, SIZES[size]["reduce"], SIZES[size]["recover"], torch.float64)
    for array in original.arrays.values():
        array.requires_grad_()
    ours, features = encoder(both.checkpoint).double(), random_features(lengths.tolist()).double()
    theirs, mine = features.clone().requires_grad_(), features.clone().requires_grad_()
    expected, logits, valid = original(theirs, lengths)
    direction = torch.where(torch.arange(11) < valid[:, None], 1.0, 0.0)[..., None] * torch.randn(4, 11, ours.d_model)
    (expected[:, :11] * direction).sum().backward()
    (ours(mine.transpose(1, 2), lengths)[0].transpose(1, 2) * direction).sum().backward()

    # Position encodings are float32 in both networks.
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(mine.grad[row, :length], theirs.grad[row, :length], atol=1e-5, rtol=1e-5)
    gradients = {name: torch.zeros(()) if a.grad is None else a.grad for name, a in original.arrays.items()}
    save(
        tmp_path / "gradients.h5",
        {name: gradients[name.removesuffix(":0")].expand(array.shape).numpy() for name, array in both.arrays.items()},
    )
    in_our_layout = read(tmp_path / "gradients.h5").encoder
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, in_our_layout[name].double(), atol=1e-4, rtol=1e-4, msg=name)
        assert parameter.grad.abs().max() > 1e-3 or name.endswith("linear_k.bias"), name


def test_training_learns_from_valid_frames_only(networks):
    """The gradients are computed in float32 by the fast implementations of training."""
    both, lengths = networks("recovers early"), [61, 34, 12]
    ours = encoder(both.checkpoint, dropout=0.0, dropout_emb=0.0).train()
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()  # use the authors' statistics, as their network does
    features = random_features(lengths)
    expected, logits, valid = both.original(features.requires_grad_(), torch.tensor(lengths))
    loss(logits.transpose(1, 2), valid).backward()
    expected_gradient, features.grad = features.grad, None
    for row, length in enumerate(lengths):
        expected_gradient[row, length:] = 0.0  # the authors' network does not mask these zeros
    encoded, valid = ours(features.transpose(1, 2), torch.tensor(lengths))
    loss(conv1d(encoded, both.checkpoint.logits_weight, both.checkpoint.logits_bias), valid).backward()
    assert expected_gradient.abs().max() > 0.01
    torch.testing.assert_close(features.grad, expected_gradient, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("case", ["padded", "mod8", "short"])
def test_the_copy_of_the_authors_network_equals_the_outputs_of_their_code(authors_run, case):
    features, lengths, run = recorded(authors_run, case)
    encoded, logits, valid = OriginalNetwork(read_all(authors_run), 2, 5)(features, lengths)
    assert valid.tolist() == run["logits_length"].tolist()
    assert_valid_equal(encoded, torch.from_numpy(run["encoder"]), valid)
    assert_valid_equal(logits, torch.from_numpy(run["logits"]), valid)


@pytest.mark.parametrize("case", ["padded", "mod8", "short"])
def test_the_encoder_equals_the_outputs_of_the_authors_code(authors_run, case):
    features, lengths, run = recorded(authors_run, case)
    checkpoint = read(authors_run / "squeezeformer-tiny.h5")
    cut = features[:, : int(lengths.max())]
    expected = torch.from_numpy(run["encoder"])
    for given in (features, cut):
        assert_encoded(encoder(checkpoint), given, lengths.tolist(), expected)
    found, valid = encode(encoder(checkpoint, variant="nemo"), cut, lengths.tolist())
    assert furthest(found.transpose(1, 2), expected, valid) > APART


def encoder(checkpoint: Original, **settings) -> SqueezeformerEncoder:
    made = SqueezeformerEncoder(**{**checkpoint.settings, **settings})
    made.load_state_dict(checkpoint.encoder)
    return made.eval()


def encode(ours: SqueezeformerEncoder, features: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return ours(features.transpose(1, 2), torch.tensor(lengths))


def assert_encoded(ours, features: torch.Tensor, lengths: list[int], expected: torch.Tensor) -> None:
    encoded, valid = encode(ours, features, lengths)
    assert valid.tolist() == [(length + 3) // 4 for length in lengths]
    assert encoded.size(2) == (features.size(1) + 3) // 4
    assert_valid_equal(encoded.transpose(1, 2), expected, valid)


def assert_valid_equal(found: torch.Tensor, expected: torch.Tensor, valid: torch.Tensor) -> None:
    """Assert that the valid frames of (B, T, D) and (B, T', D) are equal."""
    for ours, theirs, length in zip(found, expected, valid.tolist()):
        torch.testing.assert_close(ours[:length], theirs[:length], atol=TOLERANCE, rtol=0.0)


def furthest(found: torch.Tensor, expected: torch.Tensor, valid: torch.Tensor) -> float:
    pairs = zip(found, expected, valid.tolist())
    return max(float((ours[:length] - theirs[:length]).abs().max()) for ours, theirs, length in pairs)


def loss(logits: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the CTC loss of logits (B, V, T)."""
    targets, lengths = torch.tensor([[3, 1], [2, 2], [5, 0]]), torch.tensor([2, 2, 1])
    return ctc_loss(logits.permute(2, 0, 1).log_softmax(-1), targets, valid, lengths)


def random_features(lengths: list[int]) -> torch.Tensor:
    """Return random features (B, T, 80), which are zero past the lengths."""
    generator = torch.Generator().manual_seed(sum(lengths))
    features = torch.randn(len(lengths), max(lengths), 80, generator=generator)
    for row, length in enumerate(lengths):
        features[row, length:] = 0.0
    return features


def recorded(folder: Path, case: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]:
    """Return features (B, T, 80), lengths (B,), and the recorded outputs of the authors' code for them."""
    run = dict(np.load(folder / f"{case}.npz"))
    return torch.from_numpy(run["features"]), torch.from_numpy(run["length"]).long(), run


def read_all(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the recorded file by name, without the reader of the package."""
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(folder / "squeezeformer-tiny.h5") as file:
        for group in file.values():
            group.visititems(
                lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
    return arrays
