"""The page of the ladder: its table, and a comparison with the paper's argument."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks.ladder.rungs import NEMOS_RECIPE, PAPER, RUNGS, WITHOUT_UNET
from benchmarks.measuring.tables import table, timed
from nemo_squeezeformer.analysis.sizes import PUBLISHED

INTRODUCTION = """# The ladder

The paper develops Squeezeformer-SM from Conformer-CTC-M in steps (arXiv 2206.00888, section 3). The ladder is the
series of these networks. A network of the ladder is called a rung. Each rung has a recipe in `conf/ablation/`. A recipe
differs from the recipe before it in one or two lines. `python -m benchmarks.ladder` makes this page. All numbers are in
[ladder.json](ladder.json).

![Four panels with a row for each step from Conformer-CTC-M to Squeezeformer-SM. The panels show operations with the
share of the subsampling, measured time, the paper's word error rates, and word error rates of small
models.](ladder.png)"""


def measured(data: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the first measurement of a part, by rung. Return an empty dict if the part has no measurement."""
    rows = data.get(part, [])
    found: dict[str, Any] = rows[0]["measured"] if rows else {}
    return found


def percent(part: float, whole: float) -> float:
    return 100 * part / whole


def shares(data: dict[str, Any], by: str = "gflops") -> dict[str, float]:
    """Return our values for the paper's three shares, in percent of Conformer's operations.

    Args:
        by: ``gflops``, or ``counted_by_t`` for the count with T positions.
    """
    counts = measured(data, "operations")
    first = counts["Conformer"][by]
    return {
        "unet": percent(first - counts["U-Net"][by], first),
        "subsampling": percent(counts["Conformer"]["subsampling"], first),
        "depthwise": percent(counts["post-norm"][by] - counts["Squeezeformer"][by], first),
    }


def longest(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the trainings with the largest number of steps: one entry with all rungs for each seed."""
    rows: list[dict[str, Any]] = data.get("trained", [])
    steps = max((row["steps"] for row in rows), default=0)
    return [row for row in rows if row["steps"] == steps]


def error_rates(data: dict[str, Any], which: str) -> dict[str, list[float]]:
    """Return the word error rates of the small models, by rung, with one value for each seed.

    Runs with weights that are not finite are left out.
    """
    found: dict[str, list[float]] = {}
    for name in RUNGS:
        runs = [row["measured"][name] for row in longest(data) if name in row["measured"]]
        if rates := [run["wer"][which] for run in runs if run["finite"]]:
            found[name] = rates
    return found


def listed(rates: list[float] | None) -> str:
    return ", ".join(f"{rate:.1f}" for rate in rates) if rates else "-"


def ladder(data: dict[str, Any]) -> str:
    counts, times = measured(data, "operations"), measured(data, "time")
    head = ["step", "parameters", "GFLOPs for 30 s", "share of the subsampling", "time for 30 s, ms"]
    head.append("WER on test-other in the paper, %")
    small = (
        {
            "WER of small models, seen speakers, %": error_rates(data, "seen"),
            "WER of small models, unseen speaker, %": error_rates(data, "unseen"),
        }
        if longest(data)
        else {}
    )
    rows = []
    for name, rung in RUNGS.items():
        held = counts[name]
        cells = [f"{rung.step} (`{rung.recipe}`)", f"{held['parameters']:,}", f"{held['gflops']:.2f}"]
        cells.append(f"{percent(held['subsampling'], held['gflops']):.1f} %")
        cells.append(timed(times.get(name, {}).get("ms")))
        cells.append(f"{rung.published_wer:.2f}" if rung.published_wer else "-")
        rows.append(cells + [listed(rates.get(name)) for rates in small.values()])
    return table([*head, *small], rows)


def notes(data: dict[str, Any]) -> Iterator[str]:
    yield (
        "Parameters and operations: the numbers are for the encoder alone. `torch.utils.flop_counter` counts the "
        "operations for 30 s of features with 80 mel bands. A multiplication and an addition count as two operations."
    )
    for row in data.get("time", []):
        each = sorted({held["turns"] for held in row["measured"].values()})
        beside = f" The machine also did other work (load {row['load']:g})." if row.get("load", 0) > 1.5 else ""
        yield (
            f"Time: the processor time of an inference with {row['seconds']} s of audio, batch 1, one thread and "
            f"random weights. The program calls the rungs alternately.{beside} The table shows the median of {each[0]}"
            f"{' or more' if len(each) > 1 else ''} calls, with the quartiles in brackets."
        )
    yield (
        "Paper: the published word error rates after training on the 960 hours of LibriSpeech. We did not measure "
        "them. `-` means that no value is known."
    )
    runs = longest(data)
    if runs:
        seconds = mean(run["cpu_seconds"] for row in runs for run in row["measured"].values())
        yield (
            "Small models: the word error rates of the same ladder with six layers of width 64. The same program "
            f"trains all models on spoken digits of four speakers, with {runs[0]['steps']} steps of 16 utterances and "
            f"a peak learning rate of {runs[0]['peak_lr']:g}. A training takes {seconds:.0f} processor seconds. Each "
            f"rung is trained with {seeds(len(runs))}. The seen speakers are the four speakers of the training, in "
            "other recordings. The recordings of the unseen speaker are not in the training data."
        )


def repeatable(data: dict[str, Any]) -> str:
    """Return how closely a repeated run agrees with these results."""
    trained = (
        " The trainings are seeded and use one thread. On the same processor and with the same versions, error rates "
        "are identical. With another processor or other versions, rounding changes them as much as another seed does."
        if longest(data)
        else ""
    )
    return (
        "Repeated runs: parameters and operations are equal on every machine. On a similar machine, times agree within "
        f"20 %, and shares of Conformer's time agree within 10 points.{trained}"
    )


def seeds(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds, and a cell has one number for each seed"


def ends(data: dict[str, Any]) -> str:
    """Return a table of the first and the last rung, with the operations of the authors' code."""
    counts, published = measured(data, "operations"), PUBLISHED["sm"]
    rows: list[tuple[str, str, float | None]] = [
        ("Squeezeformer-SM", "Squeezeformer", published.gflops),
        ("Squeezeformer-SM without the U-Net", WITHOUT_UNET, published.gflops_without_unet),
        ("Conformer-CTC-M, 16 layers", "Conformer", None),
        ("Conformer-CTC-M of NeMo's recipe, 18 layers", NEMOS_RECIPE, None),
    ]
    cells = []
    for what, name, gflops in rows:
        held = counts[name]
        share = f"{percent(held['subsampling'], held['gflops']):.1f} %"
        known = f"{gflops:.2f}" if gflops else "-"
        cells.append([what, known, f"{held['gflops']:.2f}", f"{held['counted_by_t']:.2f}", share])
    head = ["encoder", "GFLOPs in the authors' code", "GFLOPs counted here"]
    return table([*head, "GFLOPs counted here with T positions", "share of the subsampling"], cells)


def claims(data: dict[str, Any]) -> str:
    ours, by_t = shares(data), shares(data, "counted_by_t")
    rows = []
    for name, (what, published) in PAPER.items():
        fits = [round(value) == published for value in (ours[name], by_t[name])]
        verdict = "yes" if fits[0] else "with T positions" if fits[1] else "no"
        rows.append([what, f"{published} %", f"{ours[name]:.1f} %", f"{by_t[name]:.1f} %", verdict])
    head = ["share of Conformer-CTC-M's operations", "in the paper", "counted here"]
    return table([*head, "counted here with T positions", "does the paper agree?"], rows)


def verdicts(data: dict[str, Any]) -> Iterator[str]:
    counts, times, by_t = measured(data, "operations"), measured(data, "time"), shares(data, "counted_by_t")
    first, last = counts["Conformer"], counts["Squeezeformer"]
    fits = all(round(by_t[name]) == published for name, (_, published) in PAPER.items())
    yield (
        "Relative attention multiplies queries with 2 T - 1 positions, in the authors' code, in NeMo and in this "
        f"project. If only T positions are counted, one for each frame, the paper's shares "
        f"{'all agree' if fits else 'do not all agree'} with ours after rounding to percent."
        f"{' We assume that the paper counts T positions.' if fits else ''} With 2 T - 1 positions, Conformer needs "
        f"{first['gflops'] - first['counted_by_t']:.1f} GFLOPs more, all of them in attention. The share that the "
        "U-Net saves is then larger. The share of the subsampling is smaller, because the operations of the "
        "subsampling do not change."
    )
    alike = [("U-Net", "MF/CF"), ("Swish", "post-norm")]
    same = all(counts[before]["gflops"] == counts[after]["gflops"] for before, after in alike)
    swish = {key: counts["Swish"][key] - counts["MF/CF"][key] for key in ("gflops", "parameters")}
    yield (
        f"The order of modules and the norms {'do not change' if same else 'change'} the number of operations. "
        f"Swish for GLU adds {swish['gflops']:.2f} GFLOPs and {swish['parameters'] / 1e6:.2f} M parameters, because "
        "the depthwise convolution is then twice as wide. This step makes the network simpler, but not cheaper. In "
        f"total, the ladder reduces {first['gflops']:.2f} to {last['gflops']:.2f} GFLOPs. This is a reduction by "
        f"{percent(first['gflops'] - last['gflops'], first['gflops']):.0f} %."
    )
    if times:
        took = {rung: held["ms"][1] for rung, held in times.items()}
        whole, unet, between, depthwise = (
            percent(took[before] - took[after], took["Conformer"])
            for before, after in pairwise(["Squeezeformer", "Conformer", "U-Net", "post-norm", "Squeezeformer"])
        )
        yield (
            f"In total, the ladder saves {-whole:.0f} % of Conformer's time. The U-Net saves {unet:.0f} %, and the "
            f"subsampling saves {depthwise:.0f} %. The three steps between the U-Net and the subsampling take "
            f"{abs(between):.0f} % {'more' if between < 0 else 'less'} time. Time decreases with operations, but not "
            "by the same share."
        )
    nemos = percent(counts[NEMOS_RECIPE]["subsampling"], counts[NEMOS_RECIPE]["counted_by_t"])
    yield (
        "The paper's Conformer-CTC-M has 16 layers of width 256 (the authors' `conformer-M.yml`), as "
        "Squeezeformer-SM has. With the 18 layers of NeMo's recipe, the share of the subsampling would be at most "
        f"{nemos:.1f} % with both ways of counting. The first rung equals NeMo's ConformerEncoder: the weights of "
        "NeMo's encoder load by name, and outputs and operations are equal (`tests/benchmarks/test_ladder.py`)."
    )


def accuracy(data: dict[str, Any]) -> Iterator[str]:
    """Yield the conclusions from the small models, and their limits."""
    rates, seen = error_rates(data, "unseen"), error_rates(data, "seen")
    if not rates:
        return
    path = ", ".join(f"{name} {mean(rates[name]):.1f} ({mean(seen[name]):.1f})" for name in RUNGS if name in rates)
    worse = [name for before, name in pairwise(rates) if mean(rates[name]) > mean(rates[before])]
    yield (
        f"Mean word error rates of the small models for the unseen speaker, with seen speakers in brackets: {path}. In "
        "the paper, no step with a published error rate is worse than the step before it. Here the steps that are "
        f"worse than the step before for the unseen speaker {'are' if len(worse) > 1 else 'is'}: "
        f"{', '.join(worse) or 'none'}."
    )
    spread = max(max(each) - min(each) for each in rates.values())
    if spread:
        yield (
            f"Seeds of one rung differ by up to {spread:.1f} points. From the first to the last rung, the paper's "
            "error rate changes by one point. Smaller differences between rungs do not show that one rung is better."
        )
    else:
        yield (
            "In trainings of this length, the results of one network differ by ten points between seeds ([side by "
            "side](../side_by_side/README.md)). From the first to the last rung, the paper's error rate changes by one "
            "point. With one seed for each rung, the order of the rungs may be chance. The results only show that "
            "every rung trains."
        )


def page(data: dict[str, Any]) -> str:
    """Return the whole page in Markdown."""
    commits = sorted({row["commit"] for part in data.values() if isinstance(part, list) for row in part} - {""})
    given = {"allocator": "Allocator: {}", "size": "{}"}
    made = [given.get(name, "{}").format(text) for name, text in data["conditions"].items()]
    made += [*([f"Commit {', '.join(commits)}"] if commits else [])]
    parts = [INTRODUCTION, ladder(data), *notes(data), repeatable(data), ". ".join(made) + "."]
    conclusions = list(verdicts(data))
    parts += ["## Comparison with the paper", conclusions[0]]
    parts += ["The table compares the shares that the paper reports with the shares that we count.", claims(data)]
    parts += ["The table shows the operations of the first rung, the last rung and two variants for 30 s of audio."]
    parts += [ends(data)]
    parts += [*conclusions[1:], *accuracy(data)]
    return "\n\n".join(parts) + "\n"
