"""Lets every Hydra program, NeMo's training scripts among them, find our recipes and our encoder."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

import nemo_squeezeformer  # noqa: F401  registers with NeMo, without loading it


class NemoSqueezeformerSearchPath(SearchPathPlugin):
    """Appends ``conf/`` of this package, after the program's own configuration folder."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="nemo-squeezeformer", path="pkg://nemo_squeezeformer.conf")
