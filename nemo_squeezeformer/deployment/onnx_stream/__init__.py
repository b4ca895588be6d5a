"""Streams speech through an exported model with ONNX Runtime and NumPy alone: the reference for other runtimes.

``python -m nemo_squeezeformer.onnx_stream MODEL.onnx AUDIO.wav`` needs neither torch nor NeMo. All that it knows of the
model is in the model's metadata, as ``metadata.py`` describes it.
"""
