"""Checkpoints of a run that resumes: their contents and their completeness."""
