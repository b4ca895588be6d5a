"""A model as safetensors with a plain config: written from NeMo's, read with torch and safetensors alone.

A folder has ``model.safetensors``, the state dict of what ``load`` returns; ``config.json``; and for word pieces
SentencePiece's ``tokenizer.model``. Fields of the config, all of them there and no others:

``version``: counts the changes after which older readers would go wrong; a reader refuses those that it does not know.
``nemo_squeezeformer``: the version of this package that wrote it; for people.
``encoder``: every argument of ``core.SqueezeformerEncoder``, so that no later change of a default changes a folder.
``default_att_context_size``: the size in evaluation, for ``set_default_att_context_size``.
``ctc``: null for an encoder alone; or ``blank``, the last token, and ``tokens``, ``units`` and ``leading_spaces`` as
    ``onnx_stream.metadata`` describes them.
``features``: what the encoder takes: ``class``, NeMo's preprocessor or ``core.original_features``' own, and its
    ``settings``, all of them; null if unknown.
"""

from .loading import SqueezeformerCTC, load
from .saving import save

__all__ = ["SqueezeformerCTC", "load", "save"]
