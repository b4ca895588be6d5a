"""``run``: a script runs as with ``python``, and the encoder is also registered in its child processes."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_squeezeformer.commands import run
from nemo_squeezeformer.errors import UserError


@pytest.fixture(autouse=True)
def process(monkeypatch, tmp_path):
    """Restore the state that ``run`` changes. ``run`` does not restore it, because its process ends with the script."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setenv(run.SCRIPT_VARIABLE, "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a program and a module next to it, in a folder below the current folder."""

    def write(source: str) -> Path:
        folder = tmp_path / "programs"
        folder.mkdir()
        (folder / "beside.py").write_text("VALUE = 7\n")
        (folder / "program.py").write_text(source)
        return folder / "program.py"

    return write


def run_script(*command: object) -> int:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser.add_subparsers().add_parser("run"))
    return run.main(parser.parse_args(["run", *map(str, command)]))


def in_a_new_process(*command: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "nemo_squeezeformer", "run", *map(str, command)], check=True, env=environment)


def test_the_script_has_the_same_state_as_with_python(script):
    program = script(
        "import json, sys, beside\n"
        "assert sys.modules['__main__'].__dict__ is globals()\n"
        "registered = 'nemo_squeezeformer' in sys.modules\n"
        "seen = [__name__, __file__, sys.path[0], beside.VALUE, registered, sorted(globals())]\n"
        "json.dump(seen, open('seen.json', 'w'))\n"
    )
    assert run_script("programs/program.py") == 0
    *seen, names = json.loads(Path("seen.json").read_text())
    assert seen == ["__main__", str(program), str(program.parent), 7, True]
    assert [name for name in names if not name.startswith("__")] == ["beside", "json", "registered", "sys"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--config-name", "tiny", "-x"], ["-h"], ["--version"], ["--", "a", "--"], ["+model.x=1", "~y", "a b", ""]],
)
def test_arguments_reach_the_script_untouched(script, arguments):
    program = script("import json, sys; json.dump(sys.argv, open('argv.json', 'w'))")
    run_script(program, *arguments)
    assert json.loads(Path("argv.json").read_text()) == [str(program), *arguments]


def test_the_exit_status_and_exceptions_of_the_script_pass_through(script):
    program = script("import sys\nif sys.argv[1:]: sys.exit(int(sys.argv[1]))\n1 / 0")
    with pytest.raises(SystemExit) as end:
        run_script(program, 5)
    assert end.value.code == 5
    with pytest.raises(ZeroDivisionError):
        run_script(program)


@pytest.mark.parametrize("name", ["gone.py", "."])
def test_a_missing_script_is_named(name):
    with pytest.raises(UserError, match=f"the script '{name}'"):
        run_script(name, "--config-name", "x")


def test_a_call_without_a_script_is_explained():
    with pytest.raises(UserError, match="run SCRIPT ARGS"):
        run_script()


def test_hydra_finds_a_config_path_relative_to_the_script(script):
    pytest.importorskip("hydra")
    program = script(
        "import hydra\n"
        "@hydra.main(version_base=None, config_path='conf', config_name='tiny')\n"
        "def main(cfg): open('value', 'w').write(str(cfg.value))\n"
        "if __name__ == '__main__': main()\n"
    )
    (program.parent / "conf").mkdir()
    (program.parent / "conf/tiny.yaml").write_text("value: 1\n")
    (program.parent / "conf/other.yaml").write_text("value: 2\n")
    quiet = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    run_script(program, "--config-name", "other", *quiet)
    assert Path("value").read_text() == "2"


def test_spawned_processes_are_registered_and_find_the_functions_of_the_script(script):
    program = script(
        "import json, multiprocessing, sys, beside\n"
        "def work(number): return [number + beside.VALUE, 'nemo_squeezeformer' in sys.modules, sys.argv[1:]]\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        json.dump(pool.map(work, [1, 2]), open('done.json', 'w'))\n"
    )
    in_a_new_process(program, "--x")
    assert json.loads(Path("done.json").read_text()) == [[8, True, ["--x"]], [9, True, ["--x"]]]


@pytest.mark.slow
def test_every_process_of_lightnings_ddp_is_registered_and_has_the_arguments(script):
    pytest.importorskip("lightning")
    program = script(
        "import json, sys\n"
        "from lightning.fabric import Fabric\n"
        "fabric = Fabric(accelerator='cpu', devices=2, strategy='ddp')\n"
        "fabric.launch()\n"
        "seen = [fabric.world_size, 'nemo_squeezeformer' in sys.modules, sys.argv, sys.path[0]]\n"
        "json.dump(seen, open(f'rank{fabric.global_rank}.json', 'w'))\n"
    )
    in_a_new_process(program, "--lr", "1e-3")
    expected = [2, True, [str(program), "--lr", "1e-3"], str(program.parent)]
    assert [json.loads(Path(f"rank{rank}.json").read_text()) for rank in (0, 1)] == [expected, expected]
