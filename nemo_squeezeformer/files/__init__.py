"""The reading of manifests and audio files, the writing of tokenizers, and outputs that appear only when complete."""
