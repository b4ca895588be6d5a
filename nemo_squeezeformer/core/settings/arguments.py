"""The error for an argument that an encoder does not have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def named_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Return the constructor ``init`` with a check of the names of its arguments.

    The result has the signature of ``init``. The object that is constructed has the method
    ``unknown_arguments(names, known)``, which returns the text of the error.

    Raises:
        TypeError: An argument is unknown.
    """
    known = tuple(inspect.signature(init).parameters)

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        if unknown := [name for name in kwargs if name not in known]:
            raise TypeError(args[0].unknown_arguments(unknown, known[1:]))  # type: ignore[attr-defined]
        init(*args, **kwargs)

    return checked


def without_arguments(owner: str, unknown: Sequence[str], known: Sequence[str]) -> str:
    """Return a sentence: the class ``owner`` has no arguments ``unknown``. It names similar arguments of ``known``."""
    from difflib import get_close_matches

    similar = [name for each in unknown for name in get_close_matches(each, known, n=1)]
    hint = f" (did you mean {', '.join(similar)}?)" if similar else ""
    return f"{owner} has no argument{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}{hint}."
