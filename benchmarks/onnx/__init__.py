"""What do ONNX Runtime and int8 gain in speed, and cost in accuracy?"""
