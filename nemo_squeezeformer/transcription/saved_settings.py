"""A check of the configuration in a .nemo file before NeMo uses the configuration.

A file can come from anywhere. Its configuration must name a class that NeMo allows, must be small, and must not name
files outside of the archive.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import CONFIG, shown

LONGEST = 2**24  # bytes of a configuration; a vocabulary of 100,000 word pieces takes 2 MB
MOST_VALUES = 10**6
DEEPEST = 50  # levels of nesting
MOST_REFERENCES = 10  # NeMo saves no interpolations; interpolations that name each other can grow without a limit
INSIDE = "nemo:"  # NeMo's prefix of the name of a file in the archive
FILE_SECTIONS = ("tokenizer", "preprocessor", "encoder", "decoder", "joint", "decoding", "aux_ctc", "loss")
TOKENIZER_FILES = {"bpe": ("model_path", "tokenizer.model"), "wpe": ("vocab_path", "vocab.txt")}
LAYERS = re.compile(r"(^|_)(layers|blocks|repeat)$")
# The preprocessor computes its tables when it is built, and the weights do not limit these settings.
LARGEST = {
    "sample_rate": 2**20, "n_fft": 2**16, "n_window_size": 2**16, "window_size": 1, "features": 2**12, "nfilt": 2**12,
    "pad_to": 2**12,
}  # fmt: skip
LONGEST_NAME = 100  # characters of a setting of the preprocessor, which multiplies some settings by the sampling rate
ORIGINAL = "use the original file"


def read_settings(path: str | Path, text: bytes, files: Collection[str]) -> Any:
    """Return the configuration of the model in the archive ``path``.

    Args:
        path: the archive, for messages.
        text: the content of ``model_config.yaml``.
        files: the names of the files in the archive.

    Raises:
        UserError: the text is not a configuration, or the configuration is too large, uses resolvers, names a file that
            is not in the archive, or has a setting of the preprocessor that would fill the memory.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = f"{path}: {CONFIG}"
    try:
        decoded = text.decode("utf-8")
        _check_growth(where, decoded)
        config = OmegaConf.create(decoded)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} is damaged ({reason}); {ORIGINAL}") from error
    if isinstance(config, DictConfig) and isinstance(config.get("model"), DictConfig):
        config = config.model  # NeMo takes only the model from the configuration of a training run
    if not isinstance(config, DictConfig):
        raise UserError(f"{where} is not a configuration of a model; {ORIGINAL}")
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for keys, value in _values(plain):
        _check_value(f"{where}: {'.'.join(keys)}", keys, value, files)
    _check_tokenizer(where, plain.get("tokenizer"), files)
    return config


def check_counts(path: str | Path, config: Any, tensors: int) -> None:
    """Raise UserError if the configuration has more layers than the weights have tensors.

    Without this check, NeMo would build all layers before it compares the weights.
    """
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=False)
    for keys, value in _values(plain):
        if LAYERS.search(keys[-1]) and type(value) is int and value > tensors:
            raise UserError(
                f"{path}: {CONFIG}: {'.'.join(keys)} is {value}, but the file has weights for fewer layers "
                f"({tensors} tensors in all); {ORIGINAL}"
            )


def model_class(path: str | Path, config: Any) -> Any:
    """Return the class of the model that the configuration names.

    Raises:
        UserError: the configuration names no class, NeMo's list does not allow the class, or this version of NeMo does
            not have the class. The module of a class that is not allowed is not imported.
    """
    import nemo
    from nemo.core.classes import ModelPT, common
    from nemo.utils import model_utils

    target = config.get("target")
    if not isinstance(target, str):
        raise UserError(f"{path}: {CONFIG} names no class of a model (target); {ORIGINAL}")
    if not target.startswith(tuple(common.ALLOWED_TARGET_PREFIXES)):
        raise UserError(
            f"{path}: {CONFIG}: target={shown(target)} is not a class of NeMo or of this package, so it is not "
            f"imported; {ORIGINAL}"
        )
    try:
        found = model_utils.import_class_by_path(target)
    except Exception as error:  # the import of a module can raise any error
        raise UserError(
            f"{path}: {CONFIG}: NeMo {nemo.__version__} does not have the class {shown(target)} "
            f"({' '.join(str(error).split())[:200]}); use the version of NeMo that saved the file"
        ) from error
    while hasattr(found, "__wrapped__"):  # NeMo marks experimental classes
        found = found.__wrapped__
    if not isinstance(found, type) or not issubclass(found, ModelPT):
        raise UserError(f"{path}: {CONFIG}: target={shown(target)} is not a model of NeMo; {ORIGINAL}")
    return found


def wrong_types(config: Any) -> list[str]:
    """Return a description of each setting of a module whose type is not the type that the class of the module expects.

    The function knows the expected type of a setting if the class has a default or an annotation with a plain type.
    """
    from nemo.utils import model_utils
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=False)
    found = []
    for section, settings in plain.items():
        target = settings.get("_target_") if isinstance(settings, dict) else None
        if not isinstance(target, str) or not target.startswith(("nemo.", "nemo_squeezeformer.")):
            continue
        try:
            parameters = inspect.signature(model_utils.import_class_by_path(target)).parameters
        except Exception:  # the import of a module can raise any error
            continue
        for name, value in settings.items():
            kind = _type_of(parameters[name]) if name in parameters else None
            if kind is not None and value is not None and not isinstance(value, (int, kind) if kind is float else kind):
                found.append(f"{section}.{name} is {shown(str(value))}; expected a value of type {kind.__name__}")
    return found


def _type_of(parameter: inspect.Parameter) -> Any:
    """Return the plain type of an argument, or None if the argument has no plain type."""
    plain = {kind.__name__: kind for kind in (bool, int, float, str)}
    if isinstance(parameter.annotation, str):
        return plain.get(parameter.annotation)
    if parameter.annotation is parameter.empty:
        return plain.get(type(parameter.default).__name__)
    return parameter.annotation if parameter.annotation in plain.values() else None


def _check_growth(where: str, text: str) -> None:
    """Raise UserError if the values, with repeated values counted each time, are too many or too deep.

    The parser reads events without building the values, and therefore needs little memory.
    """
    import yaml

    if len(text) > LONGEST or text.count("${") > MOST_REFERENCES:
        raise UserError(f"{where} has more than {LONGEST:,} bytes or {MOST_REFERENCES} interpolations; {ORIGINAL}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    sizes: dict[str, int] = {}  # of the values with an anchor
    open_values: list[tuple[str | None, int]] = []  # the anchor, and the count at the start of the value
    count = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError(f"{where} contains itself (*{event.anchor}); {ORIGINAL}")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            count += 1
            open_values.append((event.anchor, count - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_values.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > MOST_VALUES or len(open_values) > DEEPEST:
            raise UserError(f"{where} has more than {MOST_VALUES:,} values or {DEEPEST} levels; {ORIGINAL}")


def _values(section: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the keys and the value of every value that is neither a section nor a list."""
    inside = section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ()
    for key, value in inside:
        if isinstance(value, (dict, list)):
            yield from _values(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def _check_value(where: str, keys: tuple[str, ...], value: Any, files: Collection[str]) -> None:
    if isinstance(value, str):
        if re.search(r"\$\{.*:", value, flags=re.DOTALL):  # also with a nested reference before the colon
            raise UserError(
                f"{where}: {shown(value)} is in the configuration of a saved model, but it belongs in a recipe; NeMo "
                f"saves plain values, so another program has changed this file: {ORIGINAL}"
            )
        if value.startswith(INSIDE) and os.path.normpath(value.removeprefix(INSIDE)) not in files:
            raise UserError(f"{where} names the file {shown(value)}, which is not in the archive; {ORIGINAL}")
        if keys[0] in FILE_SECTIONS and keys[-1] != "dir" and _is_local_file(value):
            raise UserError(
                f"{where} names the file {shown(value)} of this machine, but a model takes its files only from its "
                f"archive; {ORIGINAL}"
            )
        if keys[0] == "preprocessor" and len(value) > LONGEST_NAME:
            raise UserError(f"{where} has {len(value):,} characters; {ORIGINAL}")
    largest = LARGEST.get(keys[-1]) if keys[0] == "preprocessor" else None
    if largest is not None and isinstance(value, (int, float)) and not abs(value) <= largest:
        raise UserError(f"{where} is {value}; expected at most {largest}; {ORIGINAL}")


def _is_local_file(value: str) -> bool:
    """Return True if the value is a path with a folder, and the path exists on this machine."""
    try:
        return not value.startswith(INSIDE) and "/" in value and os.path.exists(value)
    except ValueError:  # a NUL character
        return False


def _check_tokenizer(where: str, tokenizer: Any, files: Collection[str]) -> None:
    """Raise UserError if the tokenizer is missing, or if NeMo would read a tokenizer outside of the archive."""
    if not isinstance(tokenizer, dict):
        return
    languages = tokenizer.get("langs")
    for each in languages.values() if isinstance(languages, dict) else [tokenizer]:
        kind = str(each.get("type")).lower() if isinstance(each, dict) else None
        if kind in TOKENIZER_FILES:
            setting, usual = TOKENIZER_FILES[kind]
            # Archives of NeMo 1.0 have the name of the file without a prefix, or only the folder of the training run.
            name = str(each.get(setting) or os.path.join(str(each.get("dir") or ""), usual))
            if not name.startswith(INSIDE) and (os.path.basename(name) not in files or os.path.exists(name)):
                raise UserError(
                    f"{where}: tokenizer.{setting} names no file of the archive ({shown(name)}), so the tokenizer is "
                    f"missing; {ORIGINAL}"
                )
