"""`nemo-squeezeformer run`: run any NeMo program without changes, with the Squeezeformer encoder registered.

``nemo-squeezeformer run SCRIPT ARGS...`` does the same as ``python SCRIPT ARGS...`` after
``import nemo_squeezeformer``. The encoder is also registered in the processes that the script starts. These processes
look for the ``__main__`` module, and find this module instead of the script:

- Lightning's DDP runs ``__main__`` again for each further device. Lightning finds the name of this module in
  ``__main__`` and runs ``python -m nemo_squeezeformer.commands.run ARGS...``. The environment variable
  ``NEMO_SQUEEZEFORMER_SCRIPT`` contains the path of the script.
- The methods ``spawn`` and ``forkserver`` of multiprocessing import ``__main__`` again as ``__mp_main__``. This import
  also finds this module.
- Forked processes inherit the registration.
- If the script starts another Python program with a command line (``subprocess.run(["python", "other.py"])``), the
  encoder is not registered in the other program. The other program needs ``import nemo_squeezeformer``, unless the
  program uses Hydra.

Other Python processes are not affected.
"""

import argparse
import importlib.util
import os
import sys
import traceback
import types
from pathlib import Path

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import program

HELP = "run a NeMo script unmodified, with the Squeezeformer encoder registered"
SCRIPT_VARIABLE = "NEMO_SQUEEZEFORMER_SCRIPT"  # only this module reads it, in a child process
MODULE = "nemo_squeezeformer.commands.run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s SCRIPT ARGS..."
    # One positional argument for everything: with two, argparse would remove a `--` that belongs to the script.
    wanted = "a Python program, for example NeMo's speech_to_text_ctc_bpe.py, and the arguments of the program"
    parser.add_argument("command", metavar="SCRIPT ARGS", nargs=argparse.REMAINDER, help=wanted)


def main(args: argparse.Namespace) -> int:
    """Run the script and return 0, or 1 after an OSError of the script, which is printed with its traceback.

    ``sys.exit`` and other exceptions of the script are not caught.

    Raises:
        UserError: no script is given, or the script does not exist.
    """
    if not args.command:
        raise UserError("no script is given; give the path of a Python file: nemo-squeezeformer run SCRIPT ARGS...")
    name, *arguments = args.command
    script = Path(name)
    if not script.is_file():
        why = "is a folder" if script.is_dir() else f"does not exist (the current folder is {Path.cwd()})"
        raise UserError(f"the script {name!r} {why}; give the path of a Python file")
    os.environ[SCRIPT_VARIABLE] = os.path.abspath(script)
    try:
        _run_as_program(arguments)
    except BrokenPipeError:
        raise
    except OSError:  # the error line of this command would not show the line of the script
        traceback.print_exc()
        return 1
    return 0


def _run_as_program(arguments: list[str]) -> None:
    """Run the script with the state that ``python SCRIPT ARGS...`` sets up.

    The state is ``sys.argv``, the folder of the script as the first entry of ``sys.path``, and a new ``__main__``.
    """
    script = os.environ[SCRIPT_VARIABLE]
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    sys.modules["__main__"] = types.ModuleType("__main__")
    _execute(sys.modules["__main__"])


def _execute(module: types.ModuleType) -> None:
    """Execute the script in ``module``.

    ``runpy.run_path`` is not suitable, because this function removes the ``__spec__`` that child processes need to find
    this module.
    """
    import nemo_squeezeformer  # noqa: F401  registers the encoder

    module.__file__ = os.environ[SCRIPT_VARIABLE]
    module.__spec__ = importlib.util.find_spec(MODULE)
    with open(module.__file__, "rb") as source:
        code = compile(source.read(), module.__file__, "exec", dont_inherit=True)
    exec(code, module.__dict__)


def _run_again() -> int:
    _run_as_program(sys.argv[1:])
    return 0


if __name__ == "__main__":  # run again by Lightning
    sys.exit(program.run("nemo-squeezeformer", _run_again))
elif __name__ == "__mp_main__":  # imported by a spawned process
    _execute(sys.modules[__name__])
