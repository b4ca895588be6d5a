"""The figure of the demo: training loss, validation WER, and the spectrogram of an utterance with the CTC alignment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Colors of Okabe and Ito, which color-blind readers can distinguish.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


@dataclass
class Span:
    """A word, and the start and the end of the word in seconds."""

    word: str
    start: float
    end: float


@dataclass
class Alignment:
    """The features, the token probabilities and the words of one utterance.

    ``features`` are (mel bands, feature frames). ``probabilities`` are (encoder frames, tokens + 1); the last column is
    the blank. ``feature_seconds`` is the length of a feature frame, and ``output_seconds`` is the length of an encoder
    frame. ``emitted`` are the words with the times of CTC's output. ``spoken`` are the words with the times in the
    speech, or empty if these times are unknown.
    """

    features: np.ndarray
    feature_seconds: float
    probabilities: np.ndarray
    output_seconds: float
    tokens: list[str]
    reference: str
    hypothesis: str
    emitted: list[Span]
    spoken: list[Span]


def plot(path: Path, losses: list[tuple[int, float]], wers: list[tuple[int, float]], example: Alignment) -> None:
    """Write the figure to ``path``. ``losses`` and ``wers`` are (step, value) pairs; a WER is between 0 and 1."""
    import matplotlib

    matplotlib.use("agg")  # a backend that needs no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplot_mosaic(
        [["loss", "wer"], ["features", "features"], ["tokens", "tokens"], ["words", "words"]],
        figsize=(12, 11),
        layout="constrained",
        height_ratios=[3, 3, 2.2, 1.1],
    )
    _plot_loss(axes["loss"], losses)
    _plot_wer(axes["wer"], wers)
    _plot_features(axes["features"], example)
    _plot_tokens(axes["tokens"], example)
    _plot_words(axes["words"], example)
    seconds = example.features.shape[1] * example.feature_seconds
    for name in ("features", "tokens", "words"):
        axes[name].set_xlim(0, seconds)
    for name in ("features", "tokens"):
        axes[name].tick_params(labelbottom=False)
    axes["words"].set_xlabel("time (s)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_loss(axes: Any, losses: list[tuple[int, float]]) -> None:
    steps, values = np.array(losses, dtype=float).reshape(-1, 2).T
    axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.8, label="each step")
    window = min(25, len(values))
    if window > 1:
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], mean, color=BLUE, linewidth=2, label=f"mean of {window} steps")
    axes.set(title="Training loss", xlabel="optimizer step", ylabel="CTC loss (nats per utterance)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()


def _plot_wer(axes: Any, wers: list[tuple[int, float]]) -> None:
    steps, values = np.array(wers, dtype=float).reshape(-1, 2).T
    axes.plot(steps, 100 * values, color=ORANGE, marker="o", linewidth=2)
    if len(values):
        axes.annotate(
            f"{values[-1]:.1%}", (steps[-1], 100 * values[-1]), xytext=(0, 9), textcoords="offset points", ha="right"
        )
    axes.set(title="Validation", xlabel="optimizer step", ylabel="word error rate (%)")
    axes.set_ylim(0, max(105, 105 * max(values, default=1)))
    axes.grid(alpha=0.3)


def _plot_features(axes: Any, example: Alignment) -> None:
    bands, frames = example.features.shape
    low, high = np.percentile(example.features, [2, 99.5])
    image = axes.imshow(
        example.features,
        origin="lower",
        aspect="auto",
        cmap="cividis",
        vmin=low,
        vmax=high,
        extent=(0, frames * example.feature_seconds, 0, bands),
    )
    axes.set(title=f"A test utterance: “{example.reference}”", ylabel="mel band")
    axes.figure.colorbar(image, ax=axes, label="log-mel energy\n(normalized per band)", pad=0.01)


def _plot_tokens(axes: Any, example: Alignment) -> None:
    """Draw the probability of the most probable token of each encoder frame, and the probability of the blank.

    The letter of the token is drawn above the probability.
    """
    times = (np.arange(len(example.probabilities)) + 0.5) * example.output_seconds
    best = example.probabilities.argmax(axis=1)
    height = example.probabilities.max(axis=1)
    blank = best == len(example.tokens)
    axes.vlines(times[~blank], 0, height[~blank], color=BLUE, linewidth=2)
    axes.plot(times, example.probabilities[:, -1], color=GREY, linewidth=1)
    for time, token, top in zip(times[~blank], best[~blank], height[~blank], strict=True):
        letter = example.tokens[token].replace(" ", "␣")
        axes.annotate(letter, (time, top), xytext=(0, 3), textcoords="offset points", ha="center", color=BLUE)
    milliseconds = 1000 * example.output_seconds
    axes.set(title=f"Tokens that CTC emits, in frames of {milliseconds:.0f} ms: “{example.hypothesis}”")
    axes.set(ylabel="probability\n(gray line: blank)", ylim=(0, 1.2))


def _plot_words(axes: Any, example: Alignment) -> None:
    rows = [("emitted", example.emitted, BLUE)] + ([("spoken", example.spoken, GREEN)] if example.spoken else [])
    for row, (_, spans, colour) in enumerate(rows):
        for span in spans:
            axes.barh(row, span.end - span.start, left=span.start, height=0.7, color=colour, edgecolor="white")
            axes.text(
                (span.start + span.end) / 2, row, span.word, ha="center", va="center", color="white", clip_on=True
            )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title("Words: times of CTC's output" + (" and times in the speech" if example.spoken else ""))
