"""The weights from files that initialize training (``init_from_nemo_model``, ``init_from_ptl_ckpt``), and their check.

NeMo copies the weights whose names match and ignores all other weights without a message. If some weights have another
shape than in the model, torch raises a long error that lists all of these weights. NeMo also restores the whole model
of a file, and therefore cannot start a model with sub-words from a model with characters.
"""

import os
import pickle
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import finite_weights
from nemo_squeezeformer.training.fine_tuning import model_differences
from nemo_squeezeformer.training.settings import value

# The shapes of the weights depend on these settings of the encoder.
SIZE = ("d_model", "n_layers", "feat_in", "subsampling_factor", "conv_kernel_size")

# Settings of the encoder that change the function of the same weights, and the value in files without the setting. With
# None, a setting is compared only if the file and the model have a number.
FUNCTION = {
    "variant": "nemo", "deep_norm": False,
    "n_heads": None, "rope_base": None, "xscaling": None, "time_reduce_idx": None, "time_recovery_idx": None,
}  # fmt: skip


def load(cfg: Any, model: Any) -> None:
    """Check the files that initialize the weights of ``model``, and load the weights.

    NeMo loads the weights of ``init_from_pretrained_model``.

    Raises:
        UserError: see ``check``.
    """
    for weights in check(cfg, model):
        model.load_state_dict(weights, strict=False)
    if cfg.get("init_from_pretrained_model") is not None:
        model.maybe_init_from_pretrained_checkpoint(cfg)


def check(cfg: Any, model: Any) -> list[dict[str, Any]]:
    """Compare the files that initialize the weights with ``model``, and return the weights that each file gives.

    Warn about weights that no file contains, and about settings that give the weights another meaning.

    Raises:
        UserError: a file is missing or cannot be loaded, a file contains no weight of the model, or a weight in a file
            has another shape than in the model, or contains NaN or an infinite value.
    """
    from nemo.utils import logging

    from nemo_squeezeformer.core.attention import position_weights

    own = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    check_files(cfg)
    fresh, files, found = set(own), list(_files(cfg)), list[dict[str, Any]]()
    for setting, path, include, exclude in files:
        tensors, config = _read(setting, path)
        encoder = config.get("encoder") or {}
        weights = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        taken = {name for name in weights if _contains(name, include) and not _contains(name, exclude)} & set(own)
        if not taken:
            raise UserError(
                f"{setting}={path}: no weight in this file is a weight of the model{_limits(include, exclude)}"
            )
        other = sorted(name for name in taken if weights[name] != own[name])
        other.sort(key=lambda name: not name.startswith("encoder."))
        if other:
            remedy = _remedy(setting, path, exclude, other)
            raise UserError(f"{setting}={path} {_difference(other, weights, own, encoder, cfg)}; {remedy}")
        if names := finite_weights.not_finite({name: tensors[name] for name in sorted(taken)}):
            raise UserError(f"{setting}={path}: {finite_weights.complaint(names, len(taken))}")
        for difference in model_differences.find(config, model.cfg, taken):
            logging.warning(f"{setting}={path}: {difference}")
        given = [name for name in weights if _contains(name, include) and not _contains(name, exclude)]
        encoder_taken = any(name.startswith("encoder.") for name in taken)
        if encoder_taken and (warning := position_weights.differences(given, own)):
            logging.warning(f"{setting}={path}: {warning}")
        for name, published in FUNCTION.items():
            there, here = encoder.get(name, published), value(cfg, f"model.encoder.{name}", published)
            known = published is not None or not {there, here} & {None, "auto"}
            if there != here and known and encoder_taken:
                logging.warning(
                    f"{setting}={path}: the encoder in this file has model.encoder.{name}={there}, but the model has "
                    f"{here}; the same weights compute another function with another {name}, and training must adapt "
                    f"the weights; to keep the function of the file, set model.encoder.{name}={there}"
                )
        fresh -= taken
        found.append({name: tensors[name] for name in sorted(taken)})
    if files and fresh:
        logging.warning(
            f"{len(fresh)} of the model's {len(own)} weights are not in the given files; these modules start "
            f"untrained: {', '.join(_modules(fresh))}"
        )
    return found


def _files(cfg: Any) -> Iterator[tuple[str, str, Sequence[str], Sequence[str]]]:
    """Yield for each file the setting, the path, and the parts of weight names to include and to exclude.

    Raises:
        UserError: a setting is neither a path nor a dictionary of files.
    """
    for setting in ("init_from_nemo_model", "init_from_ptl_ckpt"):
        given = value(cfg, setting)
        if isinstance(given, str):
            given = {"file": {"path": given}}
        entries = list(given.values()) if isinstance(given, dict) else [given]
        for entry in entries if given is not None else []:
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                raise UserError(
                    f"{setting}={given} is not a path; give a path, or a path for each file: "
                    f"'+{setting}={{base: {{path: FILE}}, other: {{path: FILE}}}}'"
                )
            limits = (entry.get("include") or [""], entry.get("exclude") or [])
            parts = [[each] if isinstance(each, str) else each for each in limits]
            yield setting, os.path.expanduser(entry["path"]), *parts


def check_files(cfg: Any) -> None:
    """Check that the files that initialize the weights exist.

    Raises:
        UserError: a file does not exist, or a setting is neither a path nor a dictionary of files.
    """
    for setting, path, _, _ in _files(cfg):
        if not os.path.isfile(path):
            raise UserError(f"{setting}={path}: this file does not exist")


def _read(setting: str, path: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the weights of a file by name, and the configuration of the model.

    The configuration is empty if the file contains no configuration that can be read.
    """
    import torch
    import yaml

    from nemo_squeezeformer.integration.resuming.checkpoint_contents import plain_objects

    config: Mapping[str, Any] = {}
    try:
        if setting == "init_from_nemo_model":
            weights, config = _read_nemo(path)
        else:
            with plain_objects(path):
                found = torch.load(path, map_location="cpu")
            weights, config = found["state_dict"], (found.get("hyper_parameters") or {}).get("cfg") or {}
        return {name: weight.detach() for name, weight in weights.items()}, dict(config)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{setting}={path}: the file contains an object that can run code, which PyTorch loads only from "
            "trusted files; if you trust the file, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment"
        ) from error
    except (
        tarfile.TarError,
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(repr(error).split())[:300]
        raise UserError(
            f"{setting}={path} does not look like a model that NeMo has saved ({reason}); give a file that save_to() "
            "or Lightning has written"
        ) from error


def _read_nemo(path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    import torch
    import yaml

    with tarfile.open(path) as archive:
        members = {os.path.basename(member.name): member for member in archive if member.isfile()}
        weights: Any = archive.extractfile(members["model_weights.ckpt"])
        config: Any = archive.extractfile(members["model_config.yaml"])
        # PyTorch loads only weights, unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.
        return torch.load(weights, map_location="cpu"), yaml.safe_load(config)


def _difference(
    other: Sequence[str],
    there: Mapping[str, tuple[int, ...]],
    here: Mapping[str, tuple[int, ...]],
    encoder: Mapping[str, Any],
    cfg: Any,
) -> str:
    first = f"{other[0]} is {list(there[other[0]])} in the file and {list(here[other[0]])} in the model"
    more = f", and {len(other) - 1} more weights differ" if len(other) > 1 else ""
    settings = cfg.model.get("encoder") or {}
    sizes = [
        f"{name} is {encoder[name]} in the file and {settings[name]} in the model"
        for name in SIZE
        if name in encoder and name in settings and encoder[name] != settings[name]
    ]
    return f"does not fit: {first}{more}{': the encoder has another size, ' if sizes else ''}{', '.join(sizes)}"


def _remedy(setting: str, path: str, exclude: Sequence[str], other: Sequence[str]) -> str:
    modules = _modules(other)
    if "encoder.layers" in modules:
        return "choose the size of the file (size=, or the settings of model.encoder), or start without the file"
    parts = ", ".join([*exclude, *(f"{module}." for module in modules)])
    return (
        "exclude the weights that differ; the excluded weights then start untrained: "
        f"'+{setting}={{it: {{path: {path}, exclude: [{parts}]}}}}'"
    )


def _modules(names: Iterable[str]) -> list[str]:
    """Return the names of the modules that contain the weights ``names``, e.g. ``decoder`` or ``encoder.layers``."""
    parts = (name.split(".") for name in names)
    return sorted({".".join(part[: 2 if part[0] == "encoder" else 1]) for part in parts})


def _contains(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)


def _limits(include: Sequence[str], exclude: Sequence[str]) -> str:
    return "" if list(include) == [""] and not exclude else f" (include: {list(include)}, exclude: {list(exclude)})"
