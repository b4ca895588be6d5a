"""The members of an encoder that the functions of this package use.

The classes are protocols, because this package does not import the modules of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from .context import ContextSettings
from .margins import Margins
from .spans import Span


class Attention(Protocol):
    """The settings of attention."""

    @property
    def self_attention_model(self) -> str:
        """The ``self_attention_model`` of the encoder."""


class Variant(Protocol):
    """The settings in which NeMo's network and the authors' network differ."""

    @property
    def margins(self) -> Margins:
        """The zero padding of the subsampling convolutions."""

    @property
    def reduction_left(self) -> int:
        """The number of input frames before frame 2t that output frame t of the reduction layer sees."""


class Subsampling(Protocol):
    """The subsampling before the layers."""

    def init_state(self, batch: int) -> list[Tensor]:
        """Return the streaming state of ``batch`` new streams."""


class Convolution(Protocol):
    """The convolution module of a layer."""

    left: int  # number of frames that the convolution sees before each frame
    right: int  # number of frames that the convolution sees after each frame
    chunked: bool  # True if no frame sees frames after the end of the attention chunk
    depthwise_conv: nn.Conv1d  # the convolution over time


class SelfAttention(Protocol):
    """The attention module of a layer."""

    remembered: int  # number of vectors of width D that a stream remembers for each frame


class Layer(Protocol):
    """A layer of the encoder."""

    conv: Convolution
    self_attn: SelfAttention


class Streamable(Protocol):
    """An encoder that can stream if ``steps.check`` accepts the settings of the encoder."""

    d_model: int  # width of the layers
    conv_norm_type: str  # kind of the norms in the convolution modules
    pre_encode: Subsampling
    layers: Sequence[Layer]
    span: Span  # all layers, with the branches of the temporal U-Net
    contexts: ContextSettings  # the sizes of the context of attention

    @property
    def attention(self) -> Attention:
        """The settings of attention."""

    @property
    def variant(self) -> Variant:
        """The settings of NeMo's network or of the authors' network."""
