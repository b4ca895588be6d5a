"""How much speed do ONNX Runtime and int8 gain, and how much accuracy do they cost?"""
