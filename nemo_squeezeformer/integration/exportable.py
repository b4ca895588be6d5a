"""The methods that NeMo's exporters call.

An exported graph computes encodings from features. A graph for streaming also has caches as inputs and outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from nemo.core.classes.exportable import Exportable
from nemo.core.neural_types import ChannelType, NeuralType
from torch import Tensor

from nemo_squeezeformer import core
from nemo_squeezeformer.core.dispatch import recording_graph

CACHE = NeuralType(("B", "D", "D", "D"), ChannelType(), optional=True)  # only the batch size varies


class Exported(Exportable):
    """A base class with the methods that ``model.export()`` calls.

    In the exported graph the batch is the first dimension of the caches, (B, layers, ...), as NeMo's runtimes expect.
    """

    export_cache_support = False  # NeMo's set_export_config({"cache_support": True}) sets this flag

    feat_in: int
    layers: Any

    @property
    def input_types_for_export(self) -> dict[str, NeuralType]:
        """The inputs of the graph: features and lengths. With ``export_cache_support``, the caches are inputs too."""
        return self._for_export(self.input_types)

    @property
    def output_types_for_export(self) -> dict[str, NeuralType]:
        """The outputs of the graph: encodings and lengths.

        With ``export_cache_support``, the caches for the next chunk are outputs too.
        """
        return self._for_export(self.output_types)

    def _for_export(self, types: dict[str, NeuralType]) -> dict[str, NeuralType]:
        kept = list(types.items())[: 5 if self.export_cache_support else 2]
        return OrderedDict((name, CACHE if len(kind.axes) == 4 else kind) for name, kind in kept)

    @property
    def disabled_deployment_input_names(self) -> set[str]:
        """The names of the inputs that NeMo's models leave out of the graph."""
        names = set(list(self.input_types)[2:])
        return names - set(self.input_types_for_export)

    @property
    def disabled_deployment_output_names(self) -> set[str]:
        """The names of the outputs that NeMo's models leave out of the graph."""
        return set(self.output_types) - set(self.output_types_for_export)

    def forward_for_export(
        self,
        audio_signal: Tensor,
        length: Tensor | None = None,
        cache_last_channel: Tensor | None = None,
        cache_last_time: Tensor | None = None,
        cache_last_channel_len: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Compute the outputs of the exported graph.

        NeMo's exporters call this method with positional arguments.
        """
        with recording_graph():
            if cache_last_channel is None:
                return core.SqueezeformerEncoder.forward(self, audio_signal, length)
            assert cache_last_time is not None and cache_last_channel_len is not None
            caches = (cache_last_channel.transpose(0, 1), cache_last_time.transpose(0, 1), cache_last_channel_len)
            x, lengths = self.subsample(audio_signal, length, absent=self.absent(caches))
            outputs = self.stream(x, lengths, caches, before_chunk=True)
            x, lengths, channel, time, cached = self.streaming_post_process(outputs, keep_all_outputs=False)
            return x, lengths, channel.transpose(0, 1), time.transpose(0, 1), cached

    def input_example(self, max_batch: int = 1, max_dim: int = 256) -> tuple[Tensor, ...]:
        """Return random features (max_batch, F, max_dim) and lengths, as an example input of the graph.

        The first utterance has ``max_dim`` frames, and each following utterance is one frame shorter. With
        ``export_cache_support``, return ``stream_example(max_batch)``.
        """
        if self.export_cache_support:
            return self.stream_example(max_batch)
        device = self.layers[0].conv.depthwise_conv.weight.device
        lengths = torch.arange(max_dim, max_dim - max_batch, -1, device=device).clamp(min=1)
        return torch.randn(max_batch, self.feat_in, max_dim, device=device), lengths

    def stream_example(self, batch: int) -> tuple[Tensor, ...]:
        """Return an example input of a streaming graph: random features, lengths and random caches.

        The features are the prepended frames and one chunk. The first dimension of the caches is the batch.
        """
        config, caches = self.streams()
        channel, time, cached = self.get_initial_cache_state(batch, max_dim=caches.past + 1)
        sizes = (config.pre_encode_cache_size, config.chunk_size)
        t = sum(size[1] if isinstance(size, list) else size for size in sizes)
        features = torch.randn(batch, self.feat_in, t, device=channel.device)
        lengths = torch.full((batch,), t, device=channel.device)
        return features, lengths, channel.transpose(0, 1), time.transpose(0, 1), cached
