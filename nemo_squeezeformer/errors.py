"""The error that a user can mend: its message names the value and the remedy."""


class UserError(Exception):
    """Printed by the command line as one message, without a traceback."""
