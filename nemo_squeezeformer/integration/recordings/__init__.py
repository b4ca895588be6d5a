"""Recordings in training: the check of each recording, and the names of the recordings of a batch."""
