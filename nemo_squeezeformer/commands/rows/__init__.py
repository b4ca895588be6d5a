"""The rows of a transcription: inputs, finished and partial outputs, and the report at the end."""
