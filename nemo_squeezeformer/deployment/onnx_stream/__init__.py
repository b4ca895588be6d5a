"""A program that streams speech through an exported model. It is the reference for other runtimes.

The program needs ONNX Runtime and NumPy, but neither torch nor NeMo. It knows the model only from the metadata of the
ONNX files, which ``metadata.py`` describes. Its command is::

    python -m nemo_squeezeformer.onnx_stream MODEL.onnx AUDIO.wav
"""
