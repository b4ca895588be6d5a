"""The page of the ladder: its table, and what of the paper's argument it bears out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks.ladder.rungs import NEMOS_RECIPE, PAPER, RUNGS, WITHOUT_UNET
from benchmarks.measuring.tables import table, timed
from nemo_squeezeformer.analysis.sizes import PUBLISHED

INTRODUCTION = """# The ladder

From Conformer-CTC-M to Squeezeformer-SM in the paper's steps (arXiv 2206.00888, section 3). Each rung is a recipe of
`conf/ablation/`, a line or two beside the one before it. Made by `python -m benchmarks.ladder`; every figure is
in [ladder.json](ladder.json).

![Operations with the part of the subsampling, measured time, the paper's word error rates and those of small models, a
row for each step from Conformer-CTC-M down to Squeezeformer-SM.](ladder.png)"""


def measured(data: dict[str, Any], part: str) -> dict[str, Any]:
    """By rung, the first measurement of that part; nothing where there is none."""
    rows = data.get(part, [])
    found: dict[str, Any] = rows[0]["measured"] if rows else {}
    return found


def percent(part: float, whole: float) -> float:
    return 100 * part / whole


def shares(data: dict[str, Any], by: str = "gflops") -> dict[str, float]:
    """The paper's three figures as they come out here, in percent of Conformer; ``by`` one of the two counts."""
    counts = measured(data, "operations")
    first = counts["Conformer"][by]
    return {
        "unet": percent(first - counts["U-Net"][by], first),
        "subsampling": percent(counts["Conformer"]["subsampling"], first),
        "depthwise": percent(counts["post-norm"][by] - counts["Squeezeformer"][by], first),
    }


def longest(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The trainings of most steps, one of all rungs for each seed."""
    rows: list[dict[str, Any]] = data.get("trained", [])
    steps = max((row["steps"] for row in rows), default=0)
    return [row for row in rows if row["steps"] == steps]


def error_rates(data: dict[str, Any], which: str) -> dict[str, list[float]]:
    """By rung, in their order, word error rates of the small models that converged, one a seed."""
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
    head = ["step", "parameters", "GFLOPs at 30 s", "in the subsampling", "time, ms", "paper: test-other, %"]
    small = {f"small, {which}, %": error_rates(data, which) for which in ("seen", "unseen")} if longest(data) else {}
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
        "Parameters and operations are the encoder's; a multiplication and an addition are two, as "
        "`torch.utils.flop_counter` counts 30 s of 80-bin features."
    )
    for row in data.get("time", []):
        turns = sorted({held["turns"] for held in row["measured"].values()})
        beside = f", beside other work (a load of {row['load']:g})" if row.get("load", 0) > 1.5 else ""
        yield (
            f"Time: processor time of an inference of {row['seconds']} s, batch 1, one thread, random weights, rungs "
            f"interleaved{beside}; medians of {turns[0]} turns{' or more' if len(turns) > 1 else ''}, quartiles in "
            "brackets."
        )
    yield "Paper: word error rates after LibriSpeech's 960 hours, published, not ours; `-` where we know none."
    runs = longest(data)
    if runs:
        seconds = mean(run["cpu_seconds"] for row in runs for run in row["measured"].values())
        yield (
            "Small: word error rates of the same ladder six layers deep and 64 wide, trained by one program on the "
            f"digits of four voices: {runs[0]['steps']} steps of 16 utterances, {seconds:.0f} processor seconds a "
            f"model, peak learning rate {runs[0]['peak_lr']:g}, {seeds(len(runs))}. Tested on other recordings of "
            "those voices, and on a voice that was never heard."
        )


def repeatable(data: dict[str, Any]) -> str:
    """What whoever runs it again may expect."""
    trained = (
        " Trainings are seeded, on one thread: on the same processor and versions they give the same error rates to "
        "the digit, elsewhere rounding leads them apart as another seed would."
        if longest(data)
        else ""
    )
    return (
        "Again: parameters and operations are equal on every machine; times, on one like this, within 20 %, and shares "
        f"of Conformer's time within 10 points.{trained}"
    )


def seeds(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds, one figure each"


def ends(data: dict[str, Any]) -> str:
    """The ladder's ends as they were published, or computed from the authors' code."""
    counts, published = measured(data, "operations"), PUBLISHED["sm"]
    rows: list[tuple[str, str, float | None]] = [
        ("Squeezeformer-SM", "Squeezeformer", published.gflops),
        ("the same without the U-Net", WITHOUT_UNET, published.gflops_without_unet),
        ("Conformer-CTC-M, 16 layers", "Conformer", None),
        ("Conformer-CTC-M as NeMo's recipe has it, 18 layers", NEMOS_RECIPE, None),
    ]
    cells = []
    for what, name, gflops in rows:
        held = counts[name]
        share = f"{percent(held['subsampling'], held['gflops']):.1f} %"
        known = f"{gflops:.2f}" if gflops else "-"
        cells.append([what, known, f"{held['gflops']:.2f}", f"{held['counted_by_t']:.2f}", share])
    return table(["GFLOPs at 30 s", "authors' code", "here", "here, with T positions", "in the subsampling"], cells)


def claims(data: dict[str, Any]) -> str:
    ours, by_t = shares(data), shares(data, "counted_by_t")
    rows = []
    for name, (what, published) in PAPER.items():
        fits = [round(value) == published for value in (ours[name], by_t[name])]
        verdict = "yes" if fits[0] else "with T positions" if fits[1] else "no"
        rows.append([what, f"{published} %", f"{ours[name]:.1f} %", f"{by_t[name]:.1f} %", verdict])
    return table(["of Conformer-CTC-M's operations", "paper", "here", "here, with T positions", "agrees"], rows)


def verdicts(data: dict[str, Any]) -> Iterator[str]:
    counts, times, by_t = measured(data, "operations"), measured(data, "time"), shares(data, "counted_by_t")
    first, last = counts["Conformer"], counts["Squeezeformer"]
    fits = all(round(by_t[name]) == published for name, (_, published) in PAPER.items())
    yield (
        "Relative attention multiplies with 2 T - 1 positions, in the authors' code as in NeMo's and ours. Counted "
        f"with T, one for each frame, the paper's figures {'all come' if fits else 'do not all come'} out to the "
        f"percent{'; so we take it that they were counted so' if fits else ''}. The network as it is takes "
        f"{first['gflops'] - first['counted_by_t']:.1f} GFLOPs more as Conformer, all of them in attention: the U-Net "
        "saves more of that, and the subsampling, which does not change, is a smaller part."
    )
    alike = [("U-Net", "MF/CF"), ("Swish", "post-norm")]
    same = all(counts[before]["gflops"] == counts[after]["gflops"] for before, after in alike)
    swish = {key: counts["Swish"][key] - counts["MF/CF"][key] for key in ("gflops", "parameters")}
    yield (
        f"The order of modules and the norms {'change no' if same else 'change'} operations, as one expects. Swish for "
        f"GLU adds {swish['gflops']:.2f} GFLOPs and {swish['parameters'] / 1e6:.2f} M parameters, for the convolution "
        f"is twice as wide after it: simpler, not cheaper. From end to end, {first['gflops']:.2f} become "
        f"{last['gflops']:.2f} GFLOPs, {percent(first['gflops'] - last['gflops'], first['gflops']):.0f} % less."
    )
    if times:
        took = {rung: held["ms"][1] for rung, held in times.items()}
        whole, unet, between, depthwise = (
            percent(took[before] - took[after], took["Conformer"])
            for before, after in pairwise(["Squeezeformer", "Conformer", "U-Net", "post-norm", "Squeezeformer"])
        )
        yield (
            f"Of Conformer's time, {-whole:.0f} % is saved from end to end: {unet:.0f} % by the U-Net and "
            f"{depthwise:.0f} % by the subsampling; the three steps between take {abs(between):.0f} % "
            f"{'more' if between < 0 else 'less'}. So time follows operations, but not all the way."
        )
    nemos = percent(counts[NEMOS_RECIPE]["subsampling"], counts[NEMOS_RECIPE]["counted_by_t"])
    yield (
        "The paper's Conformer-CTC-M has 16 layers of width 256 (the authors' `conformer-M.yml`), like "
        "Squeezeformer-SM. With the 18 layers of NeMo's recipe, however counted, at most "
        f"{nemos:.1f} % would be spent in the subsampling. The first rung is NeMo's ConformerEncoder: its weights load "
        "by name, outputs and operations are equal (`tests/benchmarks/test_ladder.py`)."
    )


def accuracy(data: dict[str, Any]) -> Iterator[str]:
    """What the small models tell, and what they cannot."""
    rates, seen = error_rates(data, "unseen"), error_rates(data, "seen")
    if not rates:
        return
    path = ", ".join(f"{name} {mean(rates[name]):.1f} ({mean(seen[name]):.1f})" for name in RUNGS if name in rates)
    worse = [name for before, name in pairwise(rates) if mean(rates[name]) > mean(rates[before])]
    yield (
        f"Error rates of the small ladder for the unseen voice, and in brackets for seen ones: {path}. No step that "
        "the paper gives a figure for is worse than the one before; here, for the unseen voice, "
        f"{', '.join(worse) or 'none'} {'are' if len(worse) > 1 else 'is'}."
    )
    spread = max(max(each) - min(each) for each in rates.values())
    if spread:
        yield (
            f"Seeds of one rung differ by up to {spread:.1f} points, and the paper's whole ladder is one point high: "
            "smaller differences between rungs tell nothing about them."
        )
    else:
        yield (
            "Of this length, trainings of one network with other seeds differ by ten points ([side by "
            "side](../side_by_side/README.md)), and the paper's whole ladder is one point high: with one seed a rung, "
            "this order of the rungs is chance as likely as not. It shows that every rung trains."
        )


def page(data: dict[str, Any]) -> str:
    """The whole page, as Markdown."""
    commits = sorted({row["commit"] for part in data.values() if isinstance(part, list) for row in part} - {""})
    given = {"allocator": "Allocator: {}", "size": "{}"}
    made = [given.get(name, "{}").format(text) for name, text in data["conditions"].items()]
    made += [*([f"Commit {', '.join(commits)}"] if commits else [])]
    parts = [INTRODUCTION, ladder(data), *notes(data), repeatable(data), ". ".join(made) + "."]
    parts += ["## Beside the paper", claims(data), ends(data), *verdicts(data), *accuracy(data)]
    return "\n\n".join(parts) + "\n"
