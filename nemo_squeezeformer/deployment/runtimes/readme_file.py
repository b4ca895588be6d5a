"""The short README in the folder for a runtime."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer import __version__

NAME = "README.md"


def readme(runtime: str, model: Any, form: str, install: str, command: str, python: str, notes: str) -> str:
    """Return the text of the README.

    Args:
        runtime: Name of the runtime.
        model: NeMo model.
        form: The mode, the decoder and the precision, for example ``offline CTC, int8``.
        install: Command that installs the runtime.
        command: Command line that transcribes a file.
        python: Lines of Python that transcribe a file.
        notes: Sentences about the limits of the folder.
    """
    return (
        f"# A Squeezeformer for {runtime}\n\n"
        f"{type(model).__name__}, {form}, exported with nemo-squeezeformer {__version__}.\n"
        f"{notes}\n\n"
        f"```bash\n{install}\n{command}\n```\n\n"
        f"```python\n{python}\n```\n"
    )
