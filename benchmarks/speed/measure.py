"""The measurements of time and memory, in inference and in training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.measuring.encoders import Encoders, utterances
from benchmarks.measuring.memory import peak_in_a_process, peak_on_gpu
from benchmarks.measuring.products import TYPES
from benchmarks.measuring.results import Results
from benchmarks.measuring.timing import in_milliseconds, interleaved
from benchmarks.speed.plan import Plan, apart


def call(
    encoder: torch.nn.Module, inputs: dict[str, torch.Tensor], precision: str, training: bool
) -> Callable[[], None]:
    """Return a function that runs an inference, or a training step.

    The training step has no optimizer, because its work is the same for all encoders.
    """
    autocast = partial(
        torch.autocast, inputs["audio_signal"].device.type, TYPES[precision], enabled=precision != "fp32"
    )

    def infer() -> None:
        with torch.inference_mode(), autocast():
            encoder(**inputs)

    def step() -> None:
        with autocast():
            loss = encoder(**inputs)[0].float().square().mean()
        loss.backward()
        encoder.zero_grad(set_to_none=True)

    return step if training else infer


def prepared(encoders: Encoders, name: str, seconds: int, batch: int, training: bool) -> Callable[[], None]:
    """Make a short warm-up call and return the call to measure."""
    encoder, precision = apart(name)
    built = encoders.build(encoder, training)
    call(built, utterances(1, 2, encoders.device), precision, training)()
    return call(built, utterances(seconds, batch, encoders.device), precision, training)


def group(plan: Plan, results: Results, part: str, key: dict[str, int], left_out: dict[str, str], most: int) -> None:
    """Measure one group of encoders. The encoders are called alternately.

    If an encoder of the group is missing in the file, all encoders of the group are measured again.
    """
    training = part == "training"
    names = [name for name in plan.names(training) if name not in left_out]
    if not results.missing(part, key, names):
        return
    names += [name for name in results.find(part, key)["measured"] if name not in [*names, *left_out]]
    torch.set_num_threads(key["threads"])
    encoders = Encoders(plan.size, plan.device)
    calls = {name: prepared(encoders, name, key["seconds"], key["batch"], training) for name in names}
    seconds = interleaved(calls, plan.patience, plan.fewest, most, plan.device)
    measured = in_milliseconds(seconds)
    results.add(part, key, measured, left_out)
    medians = ", ".join(f"{name} {row['ms'][1]:.0f}" for name, row in measured.items())
    print(f"{part} {key}, ms: {medians}", flush=True)


def inference(plan: Plan, results: Results) -> None:
    for threads in plan.threads:
        for batch in plan.batches:
            for seconds in sorted(plan.seconds):
                if batch > 1 and threads < max(plan.threads):
                    continue  # batches are measured only with the largest number of threads, as in practice
                key = {"threads": threads, "batch": batch, "seconds": seconds}
                left_out = plan.too_long(results, key) | plan.left_out(seconds, batch, training=False)
                group(plan, results, "inference", key, left_out, plan.most)


def training(plan: Plan, results: Results) -> None:
    for threads in plan.threads:
        key = {"threads": threads, "batch": plan.step_batch, "seconds": plan.step_seconds}
        left_out = plan.left_out(plan.step_seconds, plan.step_batch, training=True)
        group(plan, results, "training", key, left_out, max(plan.fewest, plan.most // 3))


def memory(plan: Plan, results: Results) -> None:
    """Measure the memory of inference with one utterance and of a training step, with the last number of threads."""
    tasks = [("memory", seconds, 1) for seconds in sorted(plan.seconds)]
    for part, seconds, batch in [*tasks, ("training_memory", plan.step_memory_seconds, plan.step_batch)]:
        training = part == "training_memory"
        key = {"batch": batch, "seconds": seconds}
        left_out = plan.left_out(seconds, batch, training)
        names = [name for name in plan.names(training) if name not in left_out]
        for name in results.missing(part, key, names):
            prepare = partial(prepared, Encoders(plan.size, plan.device), name, seconds, batch, training)
            try:
                peak = peak_on_gpu(prepare()) if plan.device == "cuda" else peak_in_a_process(prepare, plan.threads[-1])
                measured = {name: {"MiB": round(peak, 1)}}
            except RuntimeError as error:
                measured, left_out[name] = {}, str(error)
            results.add(part, key, results.find(part, key)["measured"] | measured, left_out)
            print(f"{part} {key}, MiB: {name} {measured.get(name, {}).get('MiB', left_out.get(name))}", flush=True)
