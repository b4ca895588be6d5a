"""The short README in the folder for a runtime."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer import __version__


def readme(runtime: str, model: Any, form: str, notes: str, command: str, python: str) -> str:
    """Return the text of the README.

    Args:
        runtime: Name of the runtime.
        model: NeMo model.
        form: The mode, the decoder and the precision, for example ``offline CTC, int8``.
        notes: Sentences about the installation and the limits of the folder.
        command: Command line that transcribes a file in the folder, or an empty string.
        python: Lines of Python that transcribe a file in the folder.
    """
    shell = f"```bash\n{command}\n```\n\n" if command else ""
    return (
        f"# {type(model).__name__} for {runtime}: {form}\n\n"
        f"Exported with nemo-squeezeformer {__version__}. {notes}\n\n"
        f"{shell}```python\n{python}\n```\n"
    )
