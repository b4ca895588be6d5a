"""Run any NeMo program as it is, with the Squeezeformer encoder registered first.

``nemo-squeezeformer run SCRIPT ARGS...`` is ``python SCRIPT ARGS...`` after ``import nemo_squeezeformer``. The
processes it starts are covered too, because this module stands in as the ``__main__`` module they look for:

- Lightning's DDP relaunches ``__main__`` once for each device. It finds this module's name there and runs
  ``python -m nemo_squeezeformer.commands.run ARGS...``; the script's path comes through the environment variable below.
- multiprocessing's ``spawn`` and ``forkserver`` import ``__main__`` again as ``__mp_main__``: the same way.
- Forked processes have everything already.
- A program that the script starts by a command line of its own (``subprocess.run(["python", "other.py"])``) is not
  touched: unless it uses Hydra, it needs ``import nemo_squeezeformer``.

No interpreter is affected that was not started this way.
"""

import argparse
import importlib.util
import os
import sys
import types
from pathlib import Path

from nemo_squeezeformer.errors import UserError

HELP = "run a NeMo script unmodified, with the Squeezeformer encoder registered"
SCRIPT_VARIABLE = "NEMO_SQUEEZEFORMER_SCRIPT"  # read only by this module, when a child process is started through it
MODULE = "nemo_squeezeformer.commands.run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s SCRIPT ARGS..."
    # One argument for all: next to another positional, argparse would swallow a `--` that is the script's.
    wanted = "a Python program, e.g. NeMo's speech_to_text_ctc_bpe.py, and its arguments, passed on untouched"
    parser.add_argument("command", metavar="SCRIPT ARGS", nargs=argparse.REMAINDER, help=wanted)


def main(args: argparse.Namespace) -> int:
    """The script's own exit status: its ``sys.exit`` and its exceptions pass through.

    Raises:
        UserError: there is no such script.
    """
    if not args.command:
        raise UserError("no script; give the path of a Python file: nemo-squeezeformer run SCRIPT ARGS...")
    name, *arguments = args.command
    script = Path(name)
    if not script.is_file():
        why = "is a folder" if script.is_dir() else f"does not exist (the current folder is {Path.cwd()})"
        raise UserError(f"the script {name!r} {why}; give the path of a Python file")
    os.environ[SCRIPT_VARIABLE] = os.path.abspath(script)
    _run_as_program(arguments)
    return 0


def _run_as_program(arguments: list[str]) -> None:
    """What ``python SCRIPT ARGS...`` sees: argv, its folder first on the path, a fresh ``__main__``."""
    script = os.environ[SCRIPT_VARIABLE]
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    sys.modules["__main__"] = types.ModuleType("__main__")
    _execute(sys.modules["__main__"])


def _execute(module: types.ModuleType) -> None:
    """Not by ``runpy.run_path``: it takes away the ``__spec__`` by which child processes find this module."""
    import nemo_squeezeformer  # noqa: F401  registers

    module.__file__ = os.environ[SCRIPT_VARIABLE]
    module.__spec__ = importlib.util.find_spec(MODULE)
    with open(module.__file__, "rb") as source:
        code = compile(source.read(), module.__file__, "exec", dont_inherit=True)
    exec(code, module.__dict__)


if __name__ == "__main__":  # relaunched by Lightning
    _run_as_program(sys.argv[1:])
elif __name__ == "__mp_main__":  # imported by a spawned process
    _execute(sys.modules[__name__])
