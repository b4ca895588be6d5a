"""The model types of speech recognition: CTC, transducers and hybrid models."""

from __future__ import annotations

from tests.samples.model_types.model_type import COMMON_KEYS, SPEECH_KEYS, ModelType, spoken, tokenized

PLAIN_KEYS = """
    model.skip_nan_grad model.train_ds.is_tarred model.train_ds.tarred_audio_filepaths
    model.train_ds.bucketing_batch_size
"""
CTC_KEYS = "model.log_prediction model.interctc.loss_weights model.interctc.apply_at_layers"
TRANSDUCER_KEYS = """
    model.log_prediction model.compute_eval_loss model.rnnt_reduction model.model_defaults.pred_hidden
    model.model_defaults.joint_hidden model.decoder.prednet.pred_rnn_layers model.joint.fuse_loss_wer
    model.joint.fused_batch_size model.decoding.strategy model.decoding.greedy.max_symbols
    model.decoding.beam.beam_size model.loss.loss_name model.loss.warprnnt_numba_kwargs.fastemit_lambda
    model.variational_noise.std
"""

NARROW = ("transducer.hidden=16", "model.decoding.greedy.max_symbols=2")
CTC = COMMON_KEYS + SPEECH_KEYS + CTC_KEYS + " model.ctc_reduction model.decoder.vocabulary"
TRANSDUCER = COMMON_KEYS + SPEECH_KEYS + TRANSDUCER_KEYS
HYBRID = TRANSDUCER + CTC_KEYS + " model.aux_ctc.ctc_loss_weight model.aux_ctc.decoder.vocabulary"
TDT_KEYS = " model.model_defaults.tdt_durations model.loss.tdt_kwargs.omega model.loss.tdt_kwargs.sigma"
MODEL_TYPES: dict[str, ModelType] = {
    "EncDecCTCModel": ModelType(spoken, keys=CTC + PLAIN_KEYS + " model.labels"),
    "EncDecCTCModelBPE": ModelType(tokenized, keys=CTC + PLAIN_KEYS + " model.tokenizer.dir"),
    "EncDecRNNTModel": ModelType(spoken, small=NARROW, keys=TRANSDUCER + PLAIN_KEYS + " model.labels"),
    "EncDecRNNTBPEModel": ModelType(tokenized, small=NARROW, keys=TRANSDUCER + PLAIN_KEYS + " model.tokenizer.dir"),
    "EncDecHybridRNNTCTCModel": ModelType(spoken, small=NARROW, keys=HYBRID + PLAIN_KEYS + " model.labels"),
    "EncDecHybridRNNTCTCBPEModel": ModelType(
        tokenized, small=NARROW, keys=HYBRID + PLAIN_KEYS + " model.tokenizer.dir"
    ),
    "squeezeformer_tdt_bpe": ModelType(tokenized, small=NARROW, keys=TRANSDUCER + PLAIN_KEYS + TDT_KEYS),
    "squeezeformer_hybrid_tdt_ctc_bpe": ModelType(tokenized, small=NARROW, keys=HYBRID + PLAIN_KEYS + TDT_KEYS),
}
