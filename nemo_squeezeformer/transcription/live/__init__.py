"""Streams of audio as they come: samples, features, chunks, tokens, text, each with a state of constant size."""
