"""The export of a NeMo model to ONNX files. Their metadata contains all other data that a runtime needs."""
