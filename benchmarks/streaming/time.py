"""Time and memory of streaming with Squeezeformer, and with NeMo's cache-aware Conformer and FastConformer.

    export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    python -m benchmarks.streaming.time > benchmarks/results/streaming_time.md

With these settings glibc does not return freed memory to the system. This is the same for all encoders.

The encoders have size s, random weights and nearly equal numbers of parameters. Left context, chunks and depthwise
kernels are equal. The program measures `cache_aware_stream_step` in the middle of a stream, with full caches. The
program calls the two encoders alternately, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.counts import parameters
from benchmarks.measuring.encoders import CacheAware, built
from benchmarks.measuring.machine import allocator, processor, versions
from benchmarks.measuring.tables import head, line
from benchmarks.measuring.timing import alternately, quartiles

SQUEEZEFORMER = {"_target_": "nemo_squeezeformer.SqueezeformerEncoder", "streaming": True}
CONFORMER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "causal_downsampling": True,
    "conv_context_size": "causal",
    "att_context_style": "chunked_limited",
    "conv_norm_type": "layer_norm",  # as in NeMo's streaming recipes
}
SIZE_S = {"n_layers": 18, "d_model": 196, "n_heads": 4}
# The widths are chosen for the smallest difference in parameters.
RATES: dict[int, dict[str, dict[str, Any]]] = {
    4: {
        "Squeezeformer": SQUEEZEFORMER | SIZE_S | {"subsampling_factor": 4, "conv_kernel_size": 31},
        "Conformer": CONFORMER
        | {"n_layers": 18, "d_model": 200, "n_heads": 4}
        | {"subsampling": "striding", "subsampling_factor": 4, "conv_kernel_size": 31},
    },
    8: {
        "Squeezeformer, rate=8x": SQUEEZEFORMER
        | SIZE_S
        | {"subsampling_factor": 8, "conv_kernel_size": 9, "subsampling_conv_channels": 196},
        "FastConformer": CONFORMER
        | {"n_layers": 18, "d_model": 200, "n_heads": 4}
        | {"subsampling": "dw_striding", "subsampling_factor": 8, "conv_kernel_size": 9},
    },
}
LEFT = {4: 156, 8: 84}
CHUNKS = {4: (2, 4, 12, 26), 8: (2, 6, 14)}
HOP = 0.01  # seconds


def build(config: dict[str, Any], context: list[int]) -> Any:
    return built(config | {"feat_in": 80, "att_context_size": context}).eval()


def stepper(encoder: CacheAware, batch: int) -> Callable[[], None]:
    """Return a function that processes the next chunk of ``batch`` streams with full caches."""
    config = encoder.streaming_cfg
    caches = list(encoder.get_initial_cache_state(batch_size=batch))
    caches = [torch.randn_like(caches[0]), torch.randn_like(caches[1]), caches[2] + config.last_channel_cache_size]
    t = config.pre_encode_cache_size[1] + config.chunk_size[1]
    features, lengths = torch.randn(batch, 80, t), torch.full((batch,), t)

    def step() -> None:
        caches[:] = encoder.cache_aware_stream_step(
            processed_signal=features,
            processed_signal_length=lengths,
            cache_last_channel=caches[0],
            cache_last_time=caches[1],
            cache_last_channel_len=caches[2],
            keep_all_outputs=False,
        )[2:]

    return step


def milliseconds(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Run the steps in turns and return lower quartile, median and upper quartile of each, in milliseconds."""
    took = alternately(steps, repeats, warm_up=3)
    return {name: [1e3 * value for value in quartiles(seconds)] for name, seconds in took.items()}


def cache_bytes(encoder: CacheAware) -> tuple[int, int]:
    """Return the size of the caches of one stream in bytes: for attention, and for convolutions."""
    channel, last, _ = encoder.get_initial_cache_state(batch_size=1)
    return channel.nbytes, last.nbytes


def main() -> None:
    from nemo.utils import logging

    parser = command_line("benchmarks.streaming.time", __doc__)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    logging.setLevel(logging.ERROR)
    torch.manual_seed(0)
    print("`python -m benchmarks.streaming.time` makes this page.\n")
    print(
        "The tables show the time of the encoder for one second of audio, in milliseconds, and the size of the\n"
        "caches. The times are medians, with the quartiles in brackets. The program calls the two encoders\n"
        "alternately, step by step. Conformer and FastConformer are NeMo's cache-aware encoders."
    )
    print(f"{', '.join([processor(), versions(), f'{args.repeats} steps for each encoder', *allocator()])}.")
    for rate, configs in RATES.items():
        ours, theirs = configs
        columns = ["latency", "batch", "threads", f"time of {ours}, ms", f"time of {theirs}, ms", "ratio of the times"]
        print(f"\n{head(columns)}")
        memory = []
        for chunk in CHUNKS[rate]:
            encoders = {name: build(config, [LEFT[rate], chunk - 1]) for name, config in configs.items()}
            seconds = chunk * rate * HOP
            for batch in args.batches:
                for threads in args.threads:
                    torch.set_num_threads(threads)
                    with torch.inference_mode():
                        steps = {name: stepper(encoder, batch) for name, encoder in encoders.items()}
                        took = milliseconds(steps, args.repeats)
                    cells = [
                        f"{middle / seconds:.1f} ({low / seconds:.1f} to {high / seconds:.1f})"
                        for low, middle, high in took.values()
                    ]
                    ratio = took[ours][1] / took[theirs][1]
                    which = [f"{1e3 * seconds:.0f} ms", str(batch), str(threads)]
                    print(line([*which, *cells, f"{ratio:.2f}"]), flush=True)
            memory = [(name, parameters(encoder) / 1e6, *cache_bytes(encoder)) for name, encoder in encoders.items()]
        caches = ["attention caches, kB", "convolution caches, kB", "all caches of a stream, kB"]
        print(f"\n{head(['encoder', 'parameters, millions', *caches])}")
        for name, millions, attention, convolution in memory:
            kilobytes = [f"{size / 1e3:.0f}" for size in (attention, convolution, attention + convolution)]
            print(line([name, f"{millions:.2f}", *kilobytes]))


if __name__ == "__main__":
    main()
