"""Tests of the benchmark of a device: the page of a quick run, its encoders, and that it does not load NeMo."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from benchmarks.speed.device import QUICK, TASKS, operations
from benchmarks.speed.device_encoders import NETWORKS, POSITIONS, RATES, SIZES, Network, networks
from benchmarks.speed.device_results import Task
from nemo_squeezeformer.analysis.sizes import sizes
from tests.samples.paths import ROOT


def test_one_command_prints_the_page_without_nemo():
    program = (
        "import sys; from benchmarks.speed import device; device.main(['--quick', '--device', 'cpu'])\n"
        "assert not {'nemo', 'yaml', 'matplotlib', 'lightning'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for given in (
        "- Device: ",
        f"- Versions: PyTorch {torch.__version__}",
        "- Peak speed ",
        "- Settings of size quick",
    ):
        assert given in run.stdout
    for task in QUICK:
        section = run.stdout.split(f"## {task.shown[0].upper()}{task.shown[1:]}\n")[1].split("##")[0]
        times = dict(re.findall(r"^\| (\w+ quick, .*?) \| ([\d.,]+)[^|]* \| [\d.]+ \| - \|$", section, re.MULTILINE))
        assert times.keys() == {network.shown for network in networks(["quick"])}
        assert all(float(ms.replace(",", "")) > 0 for ms in times.values())


def test_every_network_is_measured_at_both_rates_with_both_positions():
    assert len(list(networks(["s", "m"]))) == 2 * len(NETWORKS) * len(RATES) * len(POSITIONS) == 16
    assert {(task.kind, task.batch) for task in TASKS} == {
        ("training", 32),
        *(("inference", batch) for batch in (1, 32)),
        *(("stream", batch) for batch in (1, 32, 128)),
    }


@pytest.mark.parametrize("size", ["s", "m"])
def test_the_dimensions_are_those_of_the_recipes(size):
    recipe = sizes()[size].encoder
    assert {name: recipe[name] for name in SIZES[size]} == SIZES[size]
    built = Network(size, "Squeezeformer", "4x", "rel_pos").build("meta")
    assert built.span.branches[0].start == recipe["time_reduce_idx"]


def test_the_temporal_unet_and_rotary_positions_save_operations():
    task = Task("inference", 1, 15)
    squeezeformer, conformer = (Network("s", network, "4x", "rel_pos") for network in NETWORKS)
    rotary = squeezeformer._replace(positions="rope")
    assert operations(rotary, task) < operations(squeezeformer, task) < operations(conformer, task)
