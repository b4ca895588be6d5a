r"""Train Squeezeformer-CTC with characters, like NeMo's script with the same name.

    python scripts/speech_to_text_ctc_char.py size=xs \
        model.train_ds.manifest_filepath=train.json model.validation_ds.manifest_filepath=dev.json
"""

from nemo.core.config import hydra_runner
from omegaconf import DictConfig

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError


@hydra_runner(config_path="../conf", config_name="squeezeformer_ctc_char")
def main(cfg: DictConfig) -> None:
    try:
        train(cfg)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
