"""Reading and writing of files: manifests and their audio, tokenizers, and outputs that are complete or absent."""
