"""Models for other runtimes: ONNX graphs, a program that runs ONNX graphs without PyTorch, and safetensors."""
