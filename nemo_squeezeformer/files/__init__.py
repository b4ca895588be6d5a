"""What is read and written: manifests and their audio, tokenizers, outputs that are whole or not there."""
