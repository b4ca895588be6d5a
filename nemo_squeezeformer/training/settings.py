"""Reading one setting of a configuration, whatever is open in the rest of it."""

from typing import Any


def value(cfg: Any, key: str, default: Any = None) -> Any:
    """A value of a configuration, resolved, as plain Python; the default where it is absent, null or ``???``."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError

    found = None
    try:
        found = OmegaConf.select(cfg, key, default=None)
        if OmegaConf.is_config(found):
            return OmegaConf.to_container(found, resolve=True)
    except InterpolationToMissingValueError:  # of the key itself, or of some that are below it
        return default if found is None else {name: value(found, name) for name in found}
    return default if found is None else found
