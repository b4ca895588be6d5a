"""Checks of several manifests, sample rates and samples, the largest batches, and the report of the command check."""
