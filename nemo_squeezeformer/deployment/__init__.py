"""Models for other runtimes: ONNX graphs, a program that runs the graphs without PyTorch, and safetensors."""
