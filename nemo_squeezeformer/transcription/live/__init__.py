"""Live streams of audio: samples, features, chunks, tokens and text. The state of each step has a constant size."""
