"""A test that runs the tests of this folder on the stand-in for a GPU, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.gpu import stand_in
from tests.samples.paths import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not stand_in.is_available(), reason="this PyTorch has no devices that are written in Python")
def test_no_value_is_read_from_the_stand_in_in_streams_inference_and_training(device):
    if device != "cpu":
        pytest.skip(f"the tests run on {device}")
    options = ["--device", stand_in.NAME, "-k", "wait or read"]
    run = [sys.executable, "-m", "pytest", "tests/gpu/test_streaming.py", *options]
    ended = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    (passed,) = re.findall(r"(\d+) passed", ended.stdout.splitlines()[-1]) or [""]
    assert int(passed) > 20
