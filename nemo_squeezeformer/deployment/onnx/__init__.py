"""ONNX files of a NeMo model, and in their metadata all that a runtime must know."""
