"""Folders that other runtimes load: sherpa-onnx and onnx-asr.

The modules ``sherpa_onnx`` and ``onnx_asr`` write the folders.
"""
