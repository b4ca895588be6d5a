"""Models as safetensors with a plain configuration, written from NeMo models and read with torch and safetensors only.

A folder contains ``model.safetensors``, which is the state dict of the model that ``load`` returns, and
``config.json``. For tokens of SentencePiece, it also contains ``tokenizer.model``. The configuration has exactly these
fields:

``version``: An integer that increases with every change that older readers would misread. A reader refuses versions
    that it does not know.
``nemo_squeezeformer``: The version of this package that wrote the folder, as information for people.
``encoder``: Every argument of ``core.SqueezeformerEncoder``, so that later changes of defaults have no effect.
``default_att_context_size``: The context size in evaluation, for ``set_default_att_context_size``.
``ctc``: Null if the folder contains only the encoder. Otherwise the fields are ``blank``, ``tokens``, ``units`` and
    ``leading_spaces``, which ``onnx_stream.metadata`` describes. ``blank`` is the index of the last output of the
    projection. This index equals the number of ``tokens``.
``features``: The features that the encoder needs, or null if the features are unknown. ``class`` is the class of NeMo's
    preprocessor, or ``OriginalMelSpectrogram`` of ``core.original_mel``. ``settings`` has all settings of the class.
    ``load`` builds ``core.mel.MelSpectrogram`` for ``AudioToMelSpectrogramPreprocessor``.
"""

from nemo_squeezeformer.process import extras

with extras.named(__name__):
    import safetensors  # noqa: F401  before torch, which warns if NumPy is missing

    from .loading import SqueezeformerCTC, load, load_preprocessor
    from .saving import save

__all__ = ["SqueezeformerCTC", "load", "load_preprocessor", "save"]
