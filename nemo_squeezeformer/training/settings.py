"""A function that reads a setting of a configuration. Other settings of the configuration may have no value."""

from typing import Any


def value(cfg: Any, key: str, default: Any = None) -> Any:
    """Return a resolved value of a configuration as a plain Python object.

    Return ``default`` if the value is absent, null or ``???``.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError

    found = None
    try:
        found = OmegaConf.select(cfg, key, default=None)
        if OmegaConf.is_config(found):
            return OmegaConf.to_container(found, resolve=True)
    except InterpolationToMissingValueError:  # the value of this key, or of a key below, is missing
        return default if found is None else {name: value(found, name) for name in found}
    return default if found is None else found
