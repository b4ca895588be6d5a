"""The sub-commands of ``nemo-squeezeformer``, one module each in COMMANDS: ``HELP``, ``add_arguments`` and ``main``.

Their modules are imported at every start, so NeMo and torch wait until a command is run.
"""

COMMANDS = ("train", "tokenizer", "transcribe", "stream", "export", "run")
