"""What a model gives for a batch of audio, said alike by either NeMo: this file imports nothing but torch."""

from __future__ import annotations

from typing import Any

import torch

TARGETS = torch.tensor([[3, 7, 1, 12, 5], [9, 2, 2, 4, 0]])


def outputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Lengths, the encoder's output and the decoders' for ``audio`` (B, N) of ``lengths`` (B).

    Of a transducer the joint network's log-probabilities along fixed targets, (B, T, U + 1, V + 1), and the text that
    it decodes; of CTC the log-probabilities, (B, T, V + 1), and the text.
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
    """Of the best hypotheses."""
    best = hypotheses[0] if isinstance(hypotheses, tuple) else hypotheses
    return [hypothesis.text for hypothesis in best]
