"""Folders for the runtimes that people run NeMo's exported models with.

A runtime loads its folder unmodified. A module for each runtime writes the folder: ``sherpa_onnx`` and ``onnx_asr``.
"""
