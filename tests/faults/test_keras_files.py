"""Tests that `import` reads nothing outside of the weight file, and that a damaged file gives one line of error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_squeezeformer.errors import UserError

pytest.importorskip("h5py", reason="h5py, which reads the authors' files, is not installed")
import h5py

from nemo_squeezeformer.checkpoints.tensorflow import read
from tests.samples import original_weights

SMALL = {"d_model": 4, "n_layers": 2, "n_heads": 2, "conv_kernel_size": 3, "vocabulary_size": 5, "feat_in": 8}
PRELN = "conformer/conformer_encoder/conformer_encoder_preln/gamma:0"
GROUP = "conformer_encoder"
INPUTS = 300  # number of damaged files


@pytest.fixture
def file(tmp_path) -> Path:
    original_weights.write(tmp_path / "weights.h5", **SMALL)
    return tmp_path / "weights.h5"


def replaced(file: Path, make: Callable[[Any, str], Any]) -> None:
    """Replace the array ``PRELN``. ``make`` gets its group and its name."""
    with h5py.File(file, "r+") as opened:
        del opened[GROUP][PRELN]
        make(opened[GROUP], PRELN)


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", shape=(4,))
    group.create_virtual_dataset(name, layout)


def external_link(group: Any, name: str) -> None:
    group[name] = h5py.ExternalLink("other.h5", "/data")


def soft_link(group: Any, name: str) -> None:
    group[name] = h5py.SoftLink("/conformer_logits")


def external(group: Any, name: str) -> None:
    group.create_dataset(name, shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 512)])


@pytest.mark.parametrize("make", [external, virtual, external_link, soft_link])
def test_an_array_outside_of_the_file_is_refused(file, make):
    with h5py.File(file.with_name("other.h5"), "w") as other:
        other["data"] = np.ones(4, dtype="f4")
    replaced(file, make)
    with pytest.raises(UserError, match=r"gamma:0 (takes its numbers from another file|is a link to another place)"):
        read(file)


def test_a_whole_model_behind_a_link_is_refused(file):
    with h5py.File(file.with_name("link.h5"), "w") as other:
        other["model_weights"] = h5py.ExternalLink(str(file), "/")
    with pytest.raises(UserError, match="model_weights is a link to another place"):
        read(file.with_name("link.h5"))


def test_a_declared_size_of_terabytes_is_refused_before_it_is_read(file):
    replaced(file, lambda group, name: group.create_dataset(name, shape=(2**40,), dtype="f4"))
    with pytest.raises(UserError, match=r"weights\.h5: .*gamma:0 has the shape .* too large for the size of the file"):
        read(file)


def test_a_number_of_blocks_above_the_number_of_arrays_is_refused(tmp_path):
    arrays = original_weights.arrays(**SMALL)
    original_weights.save(
        tmp_path / "blocks.h5", {name.replace("block_1_", "block_4000000000_"): a for name, a in arrays.items()}
    )
    with pytest.raises(UserError, match="block_4000000000 is named, but the file has only"):
        read(tmp_path / "blocks.h5")


def test_a_group_that_contains_itself_is_not_visited_twice(file):
    with h5py.File(file, "r+") as opened:
        opened[GROUP]["again"] = opened[GROUP]
    assert read(file).settings["d_model"] == 4


def test_names_that_are_not_text_are_refused(file):
    with h5py.File(file, "r+") as opened:
        opened[GROUP].attrs["weight_names"] = np.array([b"\xff\xfe"])
    with pytest.raises(UserError, match=f"weight_names of /{GROUP} is damaged"):
        read(file)


def test_a_damaged_file_is_read_or_refused_in_one_line(file):
    whole, drawn = file.read_bytes(), random.Random(0)
    damaged = file.with_name("damaged.h5")
    metadata = [i for i in range(len(whole)) if whole[i]]
    outcomes = {"read": 0, "refused": 0}
    for number in range(INPUTS):
        content = bytearray(whole)
        if number % 6 == 0:
            del content[drawn.randrange(len(content)) :]
        for _ in range(drawn.choice([1, 4, 64])):
            if content:
                at = drawn.choice(metadata) if number % 2 else drawn.randrange(len(content))
                content[at % len(content)] = drawn.choice([0, 0xFF, drawn.randrange(256)])
        damaged.write_bytes(content)
        try:
            read(damaged)
            outcomes["read"] += 1
        except UserError as error:
            assert str(damaged) in str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] + outcomes["refused"] == INPUTS and min(outcomes.values()) > INPUTS // 20
