"""The sub-commands of ``nemo-squeezeformer`` and their modules: ``HELP``, ``add_arguments`` and ``main``.

The modules are imported at every start, so NeMo and torch wait until a command is run.
"""

COMMANDS = {
    "train": "train",
    "tokenizer": "tokenizer",
    "transcribe": "transcribe",
    "stream": "stream",
    "import": "import_weights",  # Python keeps the word for itself
    "export": "export",
    "info": "info",
    "redundancy": "redundancy",
    "run": "run",
}
