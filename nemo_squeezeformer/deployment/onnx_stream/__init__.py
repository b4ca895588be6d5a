"""A program that transcribes speech with an exported model. The program is the reference for other runtimes.

The program needs ONNX Runtime and NumPy, but neither torch nor NeMo. The metadata of the ONNX files, which
``metadata.py`` describes, tells the program all that it needs about the model. The command is::

    python -m nemo_squeezeformer.onnx_stream MODEL.onnx AUDIO.wav
"""
