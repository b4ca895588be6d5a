"""NeMo's log in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import Handler

from nemo.utils import logging


@contextmanager
def sent_to(handler: Handler) -> Iterator[None]:
    """Also send the messages of NeMo's log to ``handler``."""
    logging._logger.addHandler(handler)
    try:
        yield
    finally:
        logging._logger.removeHandler(handler)
