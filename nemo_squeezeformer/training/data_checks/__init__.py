"""Checks of the data: of manifests, text, durations and recordings, and the report of the command `check`."""
