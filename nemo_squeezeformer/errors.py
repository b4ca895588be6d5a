"""The error for a mistake that a user can correct. The message names the value and the remedy."""


class UserError(Exception):
    """An error that the command line prints as one message, without a traceback."""
