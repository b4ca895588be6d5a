"""The parts of ``nemo-squeezeformer train``."""
