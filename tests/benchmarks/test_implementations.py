"""Tests of the implementations benchmark: the command, the cases, and the quoted table."""

from __future__ import annotations

import torch

from benchmarks.implementations import __main__ as benchmark
from benchmarks.implementations.cases import CASES, NOTHING, SIZES, WORK
from nemo_squeezeformer.core.dispatch import implementations


def test_one_command_measures_every_case_and_prints_the_page(capsys):
    threads = torch.get_num_threads()
    work = ["streaming at 480 ms", "inference, 15 s, optimized encoder"]
    benchmark.main(["--size", "quick", "--patience", "0", "--work", *work])
    torch.set_num_threads(threads)
    page = capsys.readouterr().out
    for case in CASES:
        assert (case.name in page) == bool({*case.work} & {*work})
    assert "| time without it |" in page and "x 1." in page


def test_the_page_of_benchmarks_quotes_the_table():
    root = benchmark.ROOT
    measured = (root / "benchmarks" / "results" / "implementations.md").read_text(encoding="utf-8")
    table = measured[measured.index("| implementation |") :].strip()
    assert len(table.splitlines()) > len(CASES)
    assert table in (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_every_registered_implementation_has_a_case_with_existing_files():
    files = {file for case in CASES for file in case.files}
    modules = {found.compute.__module__.partition("nemo_squeezeformer.core.")[2] for found in implementations()}
    # Recorded graphs have further implementations outside the core.
    registered = {f"{module.replace('.', '/')}.py" for module in modules if module}
    assert registered - {"inference/optimize.py", "cpu/dropout.py"} <= files
    assert all((benchmark.CORE / file).is_file() for file in files)


def test_disabling_an_implementation_does_not_change_the_outputs():
    for case in CASES:
        work = WORK[case.work[0]]
        if work.trains:  # dropout draws different random numbers
            continue
        x, lengths = torch.randn(1, 80, 400), torch.tensor([400])
        outputs = []
        for without in (NOTHING, case.without):
            encoder = benchmark.build(work, "quick", without if case.when_built else NOTHING)
            with torch.inference_mode(), NOTHING() if case.when_built else without():
                outputs.append(encoder(x, lengths)[0])
        torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=0)
    assert set(SIZES) == {"s", "quick"}
