"""Models for other runtimes: ONNX graphs, a runner for them without PyTorch, and safetensors."""
