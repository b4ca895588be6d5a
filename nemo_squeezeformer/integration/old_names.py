"""The old names of NeMo 2's encoder, and of modules of this package that have moved into subpackages.

Recipes, checkpoints and pickled objects contain these names.
"""

from __future__ import annotations

ASR_MODULES = "nemo.collections.asr.modules"
OLD_MODULE = f"{ASR_MODULES}.squeezeformer_encoder"
OLD_OPTIONS = "nemo.collections.asr.parts.k2.classes"
ENCODERS = ("SqueezeformerEncoder", "SqueezeformerEncoderAdapter")

PACKAGE = "nemo_squeezeformer"
# Old modules that contain other old modules.
PACKAGES = (f"{PACKAGE}.onnx_stream", f"{PACKAGE}.plain", f"{PACKAGE}.core.optimized")

# From an old module to the new modules that define the names of the old module. All paths are relative to PACKAGE.
MOVED = {
    "caches": ("integration.caches",),
    "encoder": ("integration.encoder",),
    "export": ("integration.exportable",),
    "layer": ("integration.layer",),
    "legacy": ("integration.legacy",),
    "onnx_stream": ("deployment.onnx_stream",),
    "onnx_stream.__main__": ("deployment.onnx_stream.__main__",),
    "original_features": ("integration.original_preprocessor",),
    "peft": ("integration.peft",),
    "plain": ("deployment.weights",),
    "recipes": ("training.recipes",),
    "redundancy": ("analysis.redundancy",),
    "register": ("integration.register",),
    "resume": ("integration.exact_resume",),
    "schedule": ("training.schedule", "training.settings"),
    "sizes": ("analysis.sizes",),
    "streaming": ("integration.streaming",),
    "core.attention_choice": ("core.kernels.choice",),
    "core.attention_kernels": ("core.attention.kernel", "core.kernels.sdpa"),
    "core.attention_settings": ("core.attention.selection",),
    "core.context": ("core.frames.context",),
    "core.graphs": ("core.dispatch.graphs",),
    "core.initial_state": ("core.frames.initial_state",),
    "core.local_attention": ("core.attention.local_attention",),
    "core.optimized": ("core.inference",),
    "core.optimized.fast_linear": ("core.cpu.linear",),
    "core.optimized.fused_attention": ("core.inference.fused_projections",),
    "core.optimized.guard": ("core.inference.guard",),
    "core.optimized.head_blocks": ("core.inference.head_blocks",),
    "core.optimized.kept_positions": ("core.inference.kept_positions",),
    "core.optimized.projections": ("core.cpu.projections",),
    "core.original_features": ("core.original_mel",),
    "core.positions": ("core.attention.positions",),
    "core.query_blocks": ("core.kernels.query_blocks",),
    "core.recomputed_attention": ("core.kernels.recomputed_attention",),
    "core.steps": ("core.frames.steps",),
    "core.streaming": ("core.frames.state",),
    "core.window_blocks": ("core.kernels.window_blocks",),
    "core.windows": ("core.kernels.windows",),
}
