"""The registration of the encoder with NeMo, at the time when NeMo is imported.

A finder at the front of ``sys.meta_path`` runs a function after the execution of one of these modules:

- ``nemo.core.classes.common`` lists the prefixes of classes that a configuration may instantiate. The function adds the
  prefix of this package and no other prefix. It also warns if this version of NeMo was not tested (``nemo_versions``).
- ``nemo.collections.asr.modules`` is the module in which old recipes and checkpoints look for ``SqueezeformerEncoder``.
  NeMo does not have this class from 3.0.0 on. The function then makes the class of this package available under this
  name. The finder does the same for the names in ``nemo.collections.asr.modules.squeezeformer_encoder``.
- ``nemo.collections.asr.models.ctc_bpe_models`` lists pretrained models. The function adds NVIDIA's Squeezeformer
  models if NeMo no longer lists these models.
- ``nemo.utils.callbacks.nemo_model_checkpoint`` writes checkpoints. The function lets NeMo 2.7.3 read the best
  checkpoint of a run with current PyTorch versions (``save_best_model``, the default of our recipes).
- ``omegaconf`` gets the resolvers of the recipes, for example for the peak learning rate.

The finder also serves modules that no longer exist:

- ``nemo.collections.asr.parts.k2.classes``, if NeMo does not have this module. Objects that NeMo 2 pickled, for example
  adapters in a separate file, contain the decoding options of the model. One type of these options is a class of this
  module.
- Modules of this package under old names, for example ``nemo_squeezeformer.resume`` (``old_names.MOVED``).
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
    Loader = MetaPathFinder = object  # importing importlib.abc takes longer than all other imports of this module

PREFIX = f"{PACKAGE}."
CTC_BPE_MODELS = "nemo.collections.asr.models.ctc_bpe_models"
CHECKPOINTS = "nemo.utils.callbacks.nemo_model_checkpoint"

After = Callable[[ModuleType], None]


def install(resolvers: str) -> None:
    """Register the encoder with the modules that are already imported, and with later imported modules.

    A second call does nothing.

    Args:
        resolvers: the module whose ``register()`` registers the resolvers of the recipes with OmegaConf.
    """
    if any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        return
    AFTER_IMPORT["omegaconf"] = lambda omegaconf: importlib.import_module(resolvers).register()
    sys.meta_path.insert(0, AfterImport())
    for name, after in AFTER_IMPORT.items():
        if name in sys.modules:
            after(sys.modules[name])


def allow_our_classes(common: ModuleType) -> None:
    """Let configurations instantiate classes of this package, and warn if this version of NeMo was not tested."""
    if PREFIX not in common.ALLOWED_TARGET_PREFIXES:
        common.ALLOWED_TARGET_PREFIXES.append(PREFIX)
    if complaint := importlib.import_module(f"{__package__}.nemo_versions").complaint():
        sys.modules["nemo.utils"].logging.warning(complaint)


def serve_old_names(modules: ModuleType) -> None:
    """Make ``SqueezeformerEncoder`` of ``legacy.py`` available under the path of NeMo 2, unless NeMo has this class.

    The encoder is imported on first use. The import of the encoder needs NeMo's modules, and these modules may not be
    completely imported when this function runs.
    """
    if PathFinder.find_spec(OLD_MODULE, modules.__path__) is None:
        modules.__getattr__ = _encoders_of(modules.__name__)  # type: ignore[method-assign]


def list_released_models(ctc_bpe_models: ModuleType) -> None:
    """Make the model names of ``pretrained.py`` available to ``from_pretrained``."""
    importlib.import_module(f"{__package__}.pretrained").register(ctc_bpe_models)
    read_best_checkpoints(sys.modules.get(CHECKPOINTS))


def read_best_checkpoints(checkpoints: ModuleType | None) -> None:
    """Let NeMo's callback for checkpoints read the best checkpoint of a run.

    If the module is being imported, for example by ``nemo.utils.callbacks`` as the first module of NeMo, the class does
    not exist yet. The import of the models then calls this function again.
    """
    writer = getattr(checkpoints, "NeMoModelCheckpoint", None)
    if writer is not None and not hasattr(writer.on_save_checkpoint, "__wrapped__"):
        importlib.import_module(f"{__package__}.resuming.best_of_nemo").let_read(writer)


AFTER_IMPORT: dict[str, After] = {
    "nemo.core.classes.common": allow_our_classes,
    ASR_MODULES: serve_old_names,
    CTC_BPE_MODELS: list_released_models,
    CHECKPOINTS: read_best_checkpoints,
}


class AfterImport(MetaPathFinder):
    """A finder for the modules of ``AFTER_IMPORT``, and for modules of ``OLD`` that no longer exist."""

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
    """A loader that executes a module with another loader, and then calls ``after`` with the module."""

    def __init__(self, loader: Loader, after: After):
        self.loader, self.after = loader, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # get_source, get_resource_reader and other methods of the real loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.after(module)


class OldModule(Loader):
    """A loader of a module that no longer exists.

    ``names(module)`` returns a function that finds the objects of the module by name.
    """

    def __init__(self, names: Callable[[str], Callable[[str], Any]]):
        self.names = names

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = self.names(module.__name__)  # type: ignore[method-assign]

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the program whose old name is ``fullname``, for ``python -m``."""
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
            return type(name, (), {"__module__": module})  # the values are pickled separately
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
