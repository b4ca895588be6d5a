"""The outputs of a model for a batch of audio. NeMo 2.7.3 and newer versions run this file; it imports only torch."""

from __future__ import annotations

from typing import Any

import torch

TARGETS = torch.tensor([[3, 7, 1, 12, 5], [9, 2, 2, 4, 0]])


def outputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return the lengths and the outputs of the encoder and the decoders for ``audio`` (B, N) with ``lengths`` (B,).

    For a transducer: the log-probabilities of the joint network along fixed targets, (B, T, U + 1, V + 1), and the
    decoded text. For CTC: the log-probabilities, (B, T, V + 1), and the decoded text.
    """
    model.eval()
    with torch.no_grad():
        features, lengths = model.preprocessor(input_signal=batch["audio"], length=batch["lengths"])
        encoded, lengths = model.encoder(audio_signal=features, length=lengths)
        found: dict[str, Any] = {"lengths": lengths.clone(), "encoded": encoded.transpose(1, 2).clone()}
        transducer = hasattr(model, "joint")
        if transducer:
            target_lengths = torch.full((len(TARGETS),), TARGETS.shape[1])
            predicted, *_ = model.decoder(targets=TARGETS, target_length=target_lengths)
            joint = model.joint(encoder_outputs=encoded, decoder_outputs=predicted)
            found["joint_log_probs"] = joint.log_softmax(dim=-1).clone()
            found["text"] = texts(model.decoding.rnnt_decoder_predictions_tensor(encoded, lengths))
        if not transducer or hasattr(model, "ctc_decoder"):
            ctc = (model.ctc_decoder, model.ctc_decoding) if transducer else (model.decoder, model.decoding)
            found["ctc_log_probs"] = ctc[0](encoder_output=encoded).clone()
            found["ctc_text"] = texts(ctc[1].ctc_decoder_predictions_tensor(found["ctc_log_probs"], lengths))
    return found


def texts(hypotheses: Any) -> list[str]:
    """Return the texts of the best hypotheses."""
    best = hypotheses[0] if isinstance(hypotheses, tuple) else hypotheses
    return [hypothesis.text for hypothesis in best]
