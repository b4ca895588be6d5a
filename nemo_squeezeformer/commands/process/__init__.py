"""The process of a command: the signals that end it, the streams that it writes, and the packages that it needs."""
