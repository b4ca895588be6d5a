"""A check of the description in the metadata of an ONNX file: the type and the range of every field that is used.

The file can come from anyone. A wrong number could otherwise fill the memory or make a stream run forever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from nemo_squeezeformer.errors import UserError

ORIGINAL = "original"  # a value of ``normalize``
MOST = 2**20  # the largest size in samples, frames or tokens
DTYPES = ("float16", "float32", "float64", "int32", "int64")
Test = Callable[[Any], bool]


def check(found: Any, where: str) -> None:
    """Raise UserError for the first field of the description ``found`` whose type or range is wrong."""
    _Fields(found, where).check_all()


class _Fields:
    def __init__(self, found: Any, where: str):
        self.found, self.where = found, where

    def check_all(self) -> None:
        self.expect("features", _is_object, "an object")
        self.features()
        for name, keys in (("inputs", ("features", "lengths")), ("outputs", ("encodings",))):
            for key in keys:
                self.expect(f"{name}.{key}", _is_name, "a name")
        self.expect("tokens", lambda it: _is_list(it) and all(isinstance(token, str) for token in it), "texts")
        tokens = self.found["tokens"]
        self.expect("blank", lambda it: _whole(0)(it) and it <= len(tokens), "the number of a token")
        self.expect("units", ("characters", "sentencepiece").__contains__, "characters or sentencepiece")
        self.expect("leading_spaces", ("none", "one", "all").__contains__, "none, one or all")
        self.expect("steps", lambda it: it is None or _is_object(it), "an object or null")
        if self.found["steps"] is not None:
            self.steps()
        self.expect("decoder", ("ctc", "transducer").__contains__, "ctc or transducer")
        if self.found["decoder"] == "transducer":
            self.transducer()

    def features(self) -> None:
        for name in ("sample_rate", "hop", "n_fft"):
            self.expect(f"features.{name}", lambda it: _whole(1)(it) and it <= 2**18, "a whole number up to 2 ** 18")
        self.expect("features.n_fft", lambda it: it <= 2**14, "at most 2 ** 14")
        settings = self.found["features"]
        self.expect("features.hop", lambda it: it * 2000 >= settings["sample_rate"], "at most 2000 frames per second")
        self.expect("features.window", lambda it: _are_numbers(it) and 0 < len(it) <= settings["n_fft"], "numbers")
        self.expect("features.preemphasis", lambda it: it is None or _is_number(it), "a number or null")
        self.expect("features.magnitude_power", lambda it: _is_number(it) and 0 < it <= 4, "a number from 0 to 4")
        self.expect("features.log_guard", lambda it: _is_number(it) and it > 0, "a number above 0")
        self.expect("features.log", (None, "add", "clamp").__contains__, "add, clamp or null")
        self.expect("features.normalize", lambda it: it is None or isinstance(it, str | Mapping), "a text or null")
        bins = settings["n_fft"] // 2 + 1
        self.expect("features.filterbank", lambda it: _is_filterbank(it, bins), "pairs of a bin and its weights")
        if settings["normalize"] == ORIGINAL:
            self.expect("features.preemphasis", _is_number, "a finite number")

    def steps(self) -> None:
        for name, least in (("window", 1), ("shift", 1), ("frames", 1), ("subsampling_factor", 1), ("before_start", 0)):
            self.expect(f"steps.{name}", _whole(least), f"a whole number from {least} to 2 ** 20")
        steps = self.found["steps"]
        self.expect("steps.window", lambda it: it <= 2**13, "at most 2 ** 13 frames")
        self.expect("steps.shift", lambda it: it <= steps["window"], "at most steps.window")
        self.expect("steps.before_start", lambda it: it <= steps["window"], "at most steps.window")
        self.expect("outputs.lengths", _is_name, "a name")
        self.expect("caches", _are_caches, "a list of caches with input, output, shape, dtype and initial")

    def transducer(self) -> None:
        self.expect("transducer.file", _is_file_name, "a name of a file in the same folder")
        for name in ("inputs.encodings", "inputs.targets", "inputs.target_lengths", "outputs.logits"):
            self.expect(f"transducer.{name}", _is_name, "a name")
        self.expect("transducer.states", _are_caches, "a list of states with input, output, shape, dtype and initial")
        self.expect("transducer.max_symbols", lambda it: it is None or _whole(1)(it), "a whole number or null")

    def expect(self, field: str, is_right: Test, expected: str) -> None:
        """Raise UserError if a field is missing, or ``is_right`` returns False for its value."""
        value: Any = self.found
        for name in field.split("."):
            if not _is_object(value) or name not in value:
                raise UserError(f"{self.where}: the field {field} is missing; export the model again")
            value = value[name]
        try:
            right = is_right(value)
        except TypeError:  # the value cannot be a member of a set of names
            right = False
        if not right:
            shown = ascii(value)[:80]
            raise UserError(f"{self.where}: {field} is {shown}; expected {expected}; export the model again")


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e6 and math.isfinite(value)


def _are_numbers(value: Any) -> bool:
    return _is_list(value) and all(map(_is_number, value))


def _whole(least: int) -> Test:
    return lambda value: type(value) is int and least <= value <= MOST


def _is_filterbank(value: Any, bins: int) -> bool:
    return (
        _is_list(value)
        and 0 < len(value) <= 4096
        and all(
            _is_list(row)
            and len(row) == 2
            and _whole(0)(row[0])
            and _are_numbers(row[1])
            and min(row[1], default=0) >= 0
            for row in value
        )
        and all(first + len(weights) <= bins for first, weights in value)
        and len(value) * bins <= 2**26
    )


def _are_caches(value: Any) -> bool:
    return _is_list(value) and all(map(_is_cache, value))


def _is_cache(value: Any) -> bool:
    if not _is_object(value) or not {"input", "output", "shape", "dtype", "initial"} <= set(value):
        return False
    shape = value["shape"]
    return (
        _is_name(value["input"])
        and _is_name(value["output"])
        and _is_list(shape)
        and all(size == "batch" or _whole(0)(size) for size in shape)
        and math.prod(size for size in shape if size != "batch") <= 2**28
        and value["dtype"] in DTYPES
        and _is_number(value["initial"])
    )


def _is_file_name(value: Any) -> bool:
    """Return True for a name without a folder, under the rules of both kinds of systems."""
    if not _is_name(value) or value in (".", "..") or "\0" in value:
        return False
    return PurePosixPath(value).name == value and PureWindowsPath(value).name == value
