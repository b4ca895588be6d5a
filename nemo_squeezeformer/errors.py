"""The exceptions that end a command without a traceback."""


class UserError(Exception):
    """A mistake that a user can correct. The message names the value and the remedy, and is printed as one line."""


class Terminated(KeyboardInterrupt):
    """The process has received SIGTERM. Code that cleans up after Ctrl-C also cleans up after SIGTERM."""
