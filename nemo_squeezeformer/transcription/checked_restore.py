"""NeMo's restoring of a .nemo file, with checks of the file before NeMo uses the contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import CONFIG, WEIGHTS, check_archive
from nemo_squeezeformer.transcription import saved_settings, saved_weights


def checked_connector() -> Any:
    """Return a connector for NeMo's ``restore_from`` and ``from_pretrained`` that checks the file."""
    from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

    class CheckedConnector(SaveRestoreConnector):
        """NeMo's connector. It checks an archive before and after it extracts the archive.

        ``reason`` is the error of the class that the configuration names, or None. After this error, NeMo builds
        the abstract class ``ASRModel`` and raises only the error of ``ASRModel``.
        """

        reason: Exception | None = None
        settings: Any = None  # the configuration in the file
        files: set[str] | None = None  # the names of the files in the archive

        def _filtered_tar_info(self, tar_path: str, filter_fn: Any = None) -> list[Any]:
            self.files = set(check_archive(tar_path))
            return SaveRestoreConnector._filtered_tar_info(tar_path, filter_fn)

        def _unpack_nemo_file(self, path2file: str, out_folder: str, members: Any = None) -> str:
            files = set(check_archive(path2file)) if self.files is None else self.files
            SaveRestoreConnector._unpack_nemo_file(path2file, out_folder, members)
            folder = Path(out_folder)
            if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
                self.check_contents(path2file, folder, files)
            return out_folder

        def check_contents(self, path: str, folder: Path, files: set[str]) -> None:
            """Check the extracted files. Raise UserError for contents that NeMo must not use."""
            import torch

            config = saved_settings.read_settings(path, (folder / CONFIG).read_bytes(), files)
            self.settings = config
            kind = saved_settings.model_class(path, config)
            header = saved_weights.read_header(path, folder / WEIGHTS)
            saved_settings.check_counts(path, config, len(header))
            kind._set_model_restore_state(is_being_restored=True, folder=str(folder))
            try:
                with torch.device("meta"):
                    model = kind.from_config_dict(config)
            except UserError:
                raise
            except Exception as error:  # a constructor raises many kinds of errors, or does not work without data
                self.reason = error
            else:
                saved_weights.check_fit(path, model, header)

    return CheckedConnector()
