"""Callbacks of Lightning that the commands add to a run."""
