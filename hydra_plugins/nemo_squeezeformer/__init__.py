"""A Hydra plugin that adds the recipes and the encoder to every Hydra program, for example NeMo's training scripts."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

import nemo_squeezeformer  # noqa: F401  the import registers with NeMo without loading NeMo


class NemoSqueezeformerSearchPath(SearchPathPlugin):
    """A plugin that appends the folder ``conf`` of this package to Hydra's search path, after the program's folder."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="nemo-squeezeformer", path="pkg://nemo_squeezeformer.conf")
