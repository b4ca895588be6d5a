"""The export of a NeMo model to ONNX files. The metadata of the files contains all other data that a runtime needs."""
