"""Tests of the attention decoder with the prompt format canary2: emotion, numerals, timestamps and speakers."""

from __future__ import annotations

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.training.recipes import compose
from tests.samples.model_types import MODEL_TYPES
from tests.samples.model_types.other_models import decoded, prompted

SLOTS = {"decodercontext": "", "emotion": "<|emo:undefined|>", "itn": "no", "timestamp": "no", "diarize": "no"}
TOKENS = ["startofcontext", "emo:undefined", "itn", "noitn", "timestamp", "notimestamp", "diarize", "nodiarize", "en"]


def test_the_recipe_trains_and_transcribes_with_the_second_prompt(tmp_path):
    kind = MODEL_TYPES["EncDecMultiTaskModel"]
    given = [override for override in kind.overrides(tmp_path) if "spl_tokens" not in override]
    (tmp_path / "second").mkdir()
    given += prompted(tmp_path / "second", tokens=TOKENS, **SLOTS)
    slots = "{source_lang: en, target_lang: en, pnc: 'no', " + ", ".join(f"{k}: '{v}'" for k, v in SLOTS.items()) + "}"
    defaults = f"model.prompt_defaults=[{{role: user, slots: {slots}}}]"
    model = train(compose("squeezeformer_aed", [*given, "model.prompt_format=canary2", defaults])).eval()
    assert model.trainer.callback_metrics["train_loss"].isfinite()
    prompt = model.prompt.encode_dialog(model.prompt.get_default_dialog_slots())["context_ids"]
    pieces = model.tokenizer.ids_to_tokens(prompt.tolist())
    assert pieces[0] == "<|startofcontext|>" and "<|emo:undefined|>" in pieces and "<|notimestamp|>" in pieces
    assert decoded(model, tmp_path / "second")["encoded"].isfinite().all()
