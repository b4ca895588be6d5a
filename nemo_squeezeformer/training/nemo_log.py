"""NeMo's log, for checks that load NeMo only if they have a message."""


def warn(message: str) -> None:
    """Show a warning in NeMo's log."""
    from nemo.utils import logging

    logging.warning(message)
