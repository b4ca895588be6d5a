"""Checks of the names of settings and recipes before NeMo is imported. The error proposes the most similar name.

The names of the settings of a class are read from the source code of the class, because an import of NeMo and Lightning
takes several seconds.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.integration import nemo_versions

SIMILAR = 0.7  # smallest ratio of difflib for a name that is proposed
# Groups of the recipes, which are settings of the command line without a section.
GROUPS = ("size", "rate", "positions", "loss", "data", "optim", "sched", "augment", "resume")
OUR_ENCODER = "nemo_squeezeformer.SqueezeformerEncoder"
CHECKED = {  # a section of a recipe, and the class whose arguments or fields are the settings of the section
    "trainer": ("lightning", "pytorch/trainer/trainer.py", "Trainer"),
    "exp_manager": ("nemo", "utils/exp_manager.py", "ExpManagerConfig"),
    "exp_manager.checkpoint_callback_params": ("nemo", "utils/exp_manager.py", "CallbackParams"),
    "model.encoder": ("nemo_squeezeformer", "core/encoder.py", "SqueezeformerEncoder"),
}


def most_similar(name: str, known: Iterable[str]) -> str:
    """Return the most similar of the known names, or "" if no name is similar."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=SIMILAR)), "")


def similar_setting(key: str, recipe: Any) -> str:
    """Return the setting of a recipe that ``key`` probably means, or "".

    The result is a setting with the same last name in another section, for example ``model.train_ds.batch_size`` for
    ``batch_size``. If there is no such setting, the result is the setting with the most similar whole name.
    """
    keys = list(_keys(recipe))
    last = key.rpartition(".")[2]
    same = [each for each in keys if each.rpartition(".")[2] == last]
    if same:
        return next((each for each in same if each.startswith("model.train_ds.")), same[0])
    return most_similar(key, [*keys, *GROUPS])


def check(cfg: Any) -> None:
    """Refuse settings that the classes of the trainer, the logs and the encoder do not have.

    Raises:
        UserError: a setting does not exist. The message names the setting and the remedy.
    """
    from omegaconf import OmegaConf

    for section, place in CHECKED.items():
        given: Any = OmegaConf.select(cfg, section, default=None)
        if not OmegaConf.is_dict(given):
            continue
        settings: Any = OmegaConf.to_container(given, resolve=False)
        if section == "model.encoder" and settings.get("_target_") != OUR_ENCODER:
            continue
        known = settings_of(*place)
        for name in settings:
            if known and name not in known and name != "_target_":
                meant = most_similar(name, known)
                remedy = f"remove it from the command, or from the recipe with ~{section}.{name}"
                remedy = f"did you mean {section}.{meant}?" if meant else remedy
                if section == "model.encoder" and not meant:
                    remedy = f"{remedy}, or upgrade nemo_squeezeformer. {nemo_versions.known_arguments()}"
                raise UserError(f"{section}.{name}: {place[2]} has no setting {name}; {remedy}")


@cache
def settings_of(package: str, file: str, name: str) -> frozenset[str]:
    """Return the names of the arguments of a class, or of the fields of a dataclass, from the source of the class.

    The result is empty if the source is not found, or if the class also accepts other names.
    """
    spec = importlib.util.find_spec(package)
    folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
    path = Path(folder or "nowhere") / file
    if not path.is_file():
        return frozenset()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _names(node)
    return frozenset()


def _names(written: ast.ClassDef) -> frozenset[str]:
    for node in written.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            return frozenset() if arguments.kwarg else frozenset(each.arg for each in every[1:])
    fields = [node.target for node in written.body if isinstance(node, ast.AnnAssign)]
    return frozenset(field.id for field in fields if isinstance(field, ast.Name))


def _keys(section: Any, above: str = "") -> Iterator[str]:
    """Yield the names of all settings of a configuration, without resolving the values."""
    from omegaconf import OmegaConf

    plain = section if isinstance(section, Mapping) else {}
    if OmegaConf.is_dict(section):
        plain = OmegaConf.to_container(section, resolve=False)  # type: ignore[assignment]
    for name, inside in plain.items():
        key = f"{above}{name}"
        yield key
        if isinstance(inside, dict):
            yield from _keys(inside, f"{key}.")
