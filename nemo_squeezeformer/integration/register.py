"""Makes NeMo know the encoder, when NeMo gets loaded and not before.

A finder in front of ``sys.meta_path`` runs a function after one of a few NeMo modules has been executed:

- ``nemo.core.classes.common`` lists what a configuration may instantiate: our prefix joins the list, nothing wider.
- ``nemo.collections.asr.modules`` is where old recipes and checkpoints look for ``SqueezeformerEncoder``. Where NeMo
  has none, from 3.0.0 on, the name leads to ours, as do the names in ``...modules.squeezeformer_encoder``.
- ``nemo.collections.asr.models.ctc_bpe_models`` lists pretrained models. NVIDIA's Squeezeformers join them where NeMo
  dropped them.
- ``omegaconf`` learns the functions that our recipes call, as for the peak learning rate.

The finder also serves modules that are no longer there:

- ``nemo.collections.asr.parts.k2.classes`` where NeMo has none: what NeMo 2 pickled, such as adapters saved alone,
  carries the model's decoding options, and names a class of that module among their types.
- Modules of this package under the names that they had, as ``nemo_squeezeformer.resume`` (``old_names.MOVED``).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.integration.old_names import (
    ASR_MODULES,
    ENCODERS,
    MOVED,
    OLD_MODULE,
    OLD_OPTIONS,
    PACKAGE,
    PACKAGES,
)

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object  # importing importlib.abc takes longer than all else here

PREFIX = f"{PACKAGE}."
CTC_BPE_MODELS = "nemo.collections.asr.models.ctc_bpe_models"

After = Callable[[ModuleType], None]


def install(resolvers: str) -> None:
    """Register with what is loaded already, and with the rest when it gets loaded. Calling it again does nothing.

    Args:
        resolvers: the module whose ``register()`` makes the functions of our recipes known to OmegaConf.
    """
    if any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        return
    AFTER_IMPORT["omegaconf"] = lambda omegaconf: importlib.import_module(resolvers).register()
    sys.meta_path.insert(0, AfterImport())
    for name, after in AFTER_IMPORT.items():
        if name in sys.modules:
            after(sys.modules[name])


def allow_our_classes(common: ModuleType) -> None:
    """Let configurations instantiate classes of this package."""
    if PREFIX not in common.ALLOWED_TARGET_PREFIXES:
        common.ALLOWED_TARGET_PREFIXES.append(PREFIX)


def serve_old_names(modules: ModuleType) -> None:
    """Let ``SqueezeformerEncoder`` be found where NeMo 2 had it, unless it is still there; ``legacy.py`` has it then.

    Lazily: importing the encoder imports NeMo's modules, which may be half-way through their own import right now.
    """
    if PathFinder.find_spec(OLD_MODULE, modules.__path__) is None:
        modules.__getattr__ = _encoders_of(modules.__name__)  # type: ignore[method-assign]


def list_released_models(ctc_bpe_models: ModuleType) -> None:
    """Let ``from_pretrained`` know the names in ``pretrained.py``."""
    importlib.import_module(f"{__package__}.pretrained").register(ctc_bpe_models)


AFTER_IMPORT: dict[str, After] = {
    "nemo.core.classes.common": allow_our_classes,
    ASR_MODULES: serve_old_names,
    CTC_BPE_MODELS: list_released_models,
}


class AfterImport(MetaPathFinder):
    """Finds the modules of ``AFTER_IMPORT`` as Python would, and those of ``OLD`` where they are no longer there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in AFTER_IMPORT and fullname not in OLD:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if fullname in OLD:
            return spec or ModuleSpec(fullname, OldModule(OLD[fullname]), is_package=fullname in PACKAGES)
        if spec is not None and spec.loader is not None:
            spec.loader = Loaded(spec.loader, AFTER_IMPORT[fullname])
        return spec


class Loaded(Loader):
    """A loader that calls ``after`` with the module it has executed."""

    def __init__(self, loader: Loader, after: After):
        self.loader, self.after = loader, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # get_source, get_resource_reader, ...: whatever the real loader has

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.after(module)


class OldModule(Loader):
    """A module that was there once; ``names(module)`` finds its names."""

    def __init__(self, names: Callable[[str], Callable[[str], Any]]):
        self.names = names

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = self.names(module.__name__)  # type: ignore[method-assign]

    def get_code(self, fullname: str) -> CodeType | None:
        """For ``python -m``: the code of the program that ``fullname`` is the old name of."""
        (program,) = MOVED[fullname.removeprefix(PREFIX)]
        spec: Any = PathFinder.find_spec(PREFIX + program, importlib.import_module(_parent(PREFIX + program)).__path__)
        return spec.loader.get_code(PREFIX + program)


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _encoders_of(module: str) -> Callable[[str], Any]:
    def __getattr__(name: str) -> Any:
        if name in ENCODERS:
            return getattr(importlib.import_module(f"{__package__}.legacy"), name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def _options_of(module: str) -> Callable[[str], Any]:
    def __getattr__(name: str) -> Any:
        if name.endswith("Config"):
            return type(name, (), {"__module__": module})  # names a type; its values are pickled beside it
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def _moved_names_of(module: str) -> Callable[[str], Any]:
    def __getattr__(name: str) -> Any:
        for new in MOVED[module.removeprefix(PREFIX)]:
            found = importlib.import_module(PREFIX + new)
            if hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


OLD: dict[str, Callable[[str], Callable[[str], Any]]] = {
    OLD_MODULE: _encoders_of,
    OLD_OPTIONS: _options_of,
    **{PREFIX + module: _moved_names_of for module in MOVED},
}
