"""Manifests, the audio they name, and files that are written whole or not at all."""
