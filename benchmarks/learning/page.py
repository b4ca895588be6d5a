"""The page of results of the bench: all trainings, and the differences between trainings with equal seeds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from benchmarks.learning.changes import CHANGES, UNCHANGED
from benchmarks.learning.data import DATA
from benchmarks.learning.encoders import ENCODERS
from benchmarks.measuring.claims import done
from benchmarks.measuring.encoders import counted
from benchmarks.measuring.tables import table

OPPONENTS = {  # an encoder of NeMo: our encoders that the page compares with it
    "Conformer, equal parameters": ("Squeezeformer",),
    "Conformer, equal operations": ("Squeezeformer",),
    "FastConformer": ("Squeezeformer 8x", "Squeezeformer 8x without U-Net"),
}
VERSIONS = "NeMo 3.0.0, torch 2.13.0+cpu"  # of the trainings whose lines have no versions
LEARNED = 90.0  # a word error rate in percent; a model with a higher rate has not learned to transcribe


class Group(NamedTuple):
    """The trainings that differ only in the seed."""

    encoder: str
    change: str
    peak: float
    steps: int
    batch: int

    @property
    def name(self) -> str:
        return self.encoder if self.change == UNCHANGED else f"{self.encoder}, {self.change}"

    @property
    def place(self) -> tuple[int, int, float, int, int]:
        """The place in the tables: the encoders and the changes have the order of the bench."""
        return list(ENCODERS).index(self.encoder), list(CHANGES).index(self.change), self.peak, self.steps, self.batch


Groups = dict[Group, dict[int, dict[str, Any]]]  # the lines of results of each group, by seed


def page(results: Path) -> str:
    """Return the page as Markdown."""
    return "\n\n".join(parts(results)) + "\n"


def parts(results: Path) -> Iterator[str]:
    yield "# How well small encoders learn"
    trainings = {path.stem: done(path) for path in sorted(results.glob("*.jsonl"), key=place)}
    versions = sorted({run.get("versions", VERSIONS) for runs in trainings.values() for run in runs})
    yield (
        "`python -m benchmarks.learning` makes this page. The `.jsonl` files in this folder have all trainings, and no "
        "training is left out. All trainings use NeMo's CTC model with sub-words, SpecAugment, AdamW, "
        "a warm-up of a tenth of the steps and then a cosine curve to almost zero, on one thread. With CR-CTC, the "
        "encoder sees two views of each utterance. Therefore a training with CR-CTC has half of the steps or half of "
        "the batch of the table. The processor minutes depend on the machine and on its load. "
        f"The versions are: {'; '.join(versions)}."
    )
    yield table(["encoder", "parameters", "GFLOPs for 30 s"], counts())
    for name, runs in trainings.items():
        groups = grouped(runs)
        data, batches = DATA[name], ", ".join(map(str, sorted({group.batch for group in groups})))
        yield f"## {name}"
        yield (
            f"{data.words} The vocabulary has {data.vocabulary} sub-words. A batch has {batches} utterances. "
            'Word error rates are in percent. "dev" has one number for each seed. "last tenth" is the mean change of '
            "dev in the last tenth of the steps."
        )
        yield table(
            ["encoder", "peak rate", "steps", "dev", "mean", "test", "last tenth", "processor minutes"],
            [row(group, runs) for group, runs in groups.items()],
        )
        compared = list(differences(groups))
        if compared:
            yield (
                '"difference" is the difference of the two word error rates on dev for equal seeds, in points: the '
                "mean, and the interval that has the true mean with 95 % confidence (Student's t). "
                '"relative" is this mean divided by the mean word error rate of the second name. The difference is '
                "significant if the interval does not contain 0. A negative difference favors the first name. "
                "Trainings are compared at equal peak rates. Encoders are also compared at the best peak rate of each "
                "encoder: the rate with the lowest mean word error rate on dev, of the rates with the most seeds."
            )
            columns = ["compared", "with", "peak rates", "steps", "seeds", "difference", "relative", "significant"]
            yield table(columns, compared)


def place(results: Path) -> int:
    """Return the place of the data on the page."""
    return list(DATA).index(results.stem)


def grouped(runs: list[dict[str, Any]]) -> Groups:
    """Return the trainings by group and by seed."""
    groups: Groups = {}
    for run in runs:
        group = Group(*(run[field] for field in Group._fields))
        groups.setdefault(group, {})[run["seed"]] = run
    return {group: dict(sorted(groups[group].items())) for group in sorted(groups, key=lambda each: each.place)}


@cache
def counts() -> list[list[str]]:
    """Return the rows with the parameters and the operations of the encoders."""
    count = {name: counted(settings) for name, settings in ENCODERS.items()}
    return [[name, f"{each['parameters']:,}", f"{each['gflops_30_s']:.2f}"] for name, each in count.items()]


def row(group: Group, runs: dict[int, dict[str, Any]]) -> list[str]:
    rates = [rate(run) for run in runs.values()]
    tests = [value for run in runs.values() for value in run["test"].values()]
    falls = [run["dev"][-1] - run["dev"][-2] for run in runs.values()]
    return [
        group.name,
        f"{group.peak:g}",
        str(group.steps),
        ", ".join(f"{each:.1f}" for each in rates),
        f"{mean(rates):.1f}" + (f" ± {stdev(rates):.1f}" if len(rates) > 1 else ""),
        f"{mean(tests):.1f}" if tests else "-",
        f"{mean(falls):+.1f}",
        f"{mean(run['cpu_seconds'] for run in runs.values()) / 60:.0f}",
    ]


def rate(run: dict[str, Any]) -> float:
    """Return the word error rate on dev at the end, in percent. A training that was not finite has 100."""
    return float(run["dev"][-1]) if run["finite"] else 100.0


def pairs(groups: Groups) -> Iterator[tuple[Group, Group]]:
    """Yield the compared groups: with and without a change, and our encoder and an encoder of NeMo."""
    for group in groups:
        before = group._replace(change=CHANGES[group.change].before)
        if before != group and before in groups:
            yield group, before
    best = best_peaks(groups)
    for theirs in groups:
        for ours in groups:
            like = theirs._replace(encoder=ours.encoder, change=ours.change, peak=ours.peak)
            comparable = ours == like and ours.encoder in OPPONENTS.get(theirs.encoder, ())
            if comparable and (ours.peak == theirs.peak or best >= {ours, theirs}):
                yield ours, theirs


def best_peaks(groups: Groups) -> set[Group]:
    """Return the groups with the lowest mean word error rate on dev of all groups that differ in the peak rate.

    Only groups with the largest number of seeds are compared.
    """

    def order(group: Group) -> tuple[int, float]:
        return -len(groups[group]), mean(rate(run) for run in groups[group].values())

    best: dict[Group, Group] = {}
    for group in sorted(groups, key=order):
        best.setdefault(group._replace(peak=0.0), group)
    return set(best.values())


def differences(groups: Groups) -> Iterator[list[str]]:
    """Yield a row for each pair of groups with at least two common seeds."""
    for ours, theirs in pairs(groups):
        seeds = sorted(set(groups[ours]) & set(groups[theirs]))
        if len(seeds) > 1:
            first, second = ([rate(groups[each][seed]) for seed in seeds] for each in (ours, theirs))
            middle, width = interval([one - other for one, other in zip(first, second)])
            significant = "yes" if abs(middle) > width else "no"
            if min(mean(first), mean(second)) > LEARNED:
                significant = "no: neither has learned"
            peaks = ", ".join(f"{peak:g}" for peak in dict.fromkeys((ours.peak, theirs.peak)))
            cells = [ours.name, theirs.name, peaks, str(ours.steps), str(len(seeds))]
            yield [*cells, f"{middle:+.1f} ± {width:.1f}", f"{100 * middle / mean(second):+.0f} %", significant]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean of the values, and half of the width of its 95 % confidence interval (Student's t)."""
    from scipy.stats import t

    return mean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
