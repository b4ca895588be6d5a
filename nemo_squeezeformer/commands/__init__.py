"""The sub-commands of ``nemo-squeezeformer``.

Each command has a module with ``HELP``, ``add_arguments`` and ``main``. Every start of the command line imports all of
these modules. The modules therefore import NeMo and torch only when the command runs.
"""

COMMANDS = {
    "train": "train",
    "check": "check",
    "tokenizer": "tokenizer",
    "lm": "lm",
    "transcribe": "transcribe",
    "stream": "stream",
    "serve": "serve",
    "import": "import_weights",  # "import" is a keyword of Python
    "export": "export",
    "info": "info",
    "redundancy": "redundancy",
    "run": "run",
}
