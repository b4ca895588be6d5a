"""Tests of nested U-Nets, gradient checkpointing and compilation in NeMo's models."""

from __future__ import annotations

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from nemo.core.classes.mixins import AccessMixin
from omegaconf import open_dict
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder, SqueezeformerEncoderAdapter
from nemo_squeezeformer.core import layer_call
from tests.samples.asr_models import asr_model
from tests.samples.encoders import SMALL, enliven, features, on_record, valid

NESTED = {"time_reduce_idx": [1, 2], "time_recovery_idx": [3, 3]}
BATCH = {"audio_signal": features(2, 101), "length": torch.tensor([101, 60])}


def encoder(kind: type[SqueezeformerEncoder] = SqueezeformerEncoder, **settings) -> SqueezeformerEncoder:
    torch.manual_seed(0)
    made = kind(**(SMALL | NESTED | {"dropout": 0.2} | settings))
    enliven(made)
    return made


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_of_a_nested_unet_record_their_own_lengths(checkpointing):
    made = encoder(gradient_checkpointing=checkpointing).train()
    with on_record(interctc={"capture_layers": [0, 1, 2, 3]}):
        made(**BATCH)
    record = made._registry
    lengths = {i: record[f"interctc/layer_length_{i}"][0].tolist() for i in range(4)}
    assert lengths == {0: [26, 15], 1: [13, 8], 2: [7, 4], 3: [26, 15]}
    widths = {i: record[f"interctc/layer_output_{i}"][0].size(2) for i in range(4)}
    assert widths == {0: 26, 1: 13, 2: 7, 3: 26}


def test_recorded_layers_of_a_checkpointed_encoder_are_recorded_once_and_have_gradients():
    gradients = []
    for checkpointing in (False, True):
        made = encoder(gradient_checkpointing=checkpointing).train()
        torch.manual_seed(0)
        with on_record(save_encoder_tensors=True, interctc={"capture_layers": [2]}):
            made(**BATCH)
            registry = AccessMixin.get_module_registry(made)
            loss = made._registry["interctc/layer_output_2"][0].square().sum()
            (loss + registry["layers.1"]["encoder"][0].square().sum()).backward()
        assert {len(record["encoder"]) for name, record in registry.items() if name.startswith("layers.")} == {1}
        gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and not any("layers.3." in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, atol=0, rtol=0)


def test_adapters_of_a_frozen_checkpointed_encoder_get_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        made = encoder(SqueezeformerEncoderAdapter, gradient_checkpointing=checkpointing)
        made.add_adapter("linear", LinearAdapterConfig(in_features=16, dim=4))
        made.freeze()
        made.train()
        torch.manual_seed(0)
        for name, parameter in made.named_parameters():
            if "adapter" in name:
                parameter.requires_grad = True
                torch.nn.init.normal_(parameter, std=0.1)
        made(**BATCH)[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert gradients[0] and gradients[0].keys() == gradients[1].keys()
    assert all("adapter" in name and gradient.abs().max() > 0 for name, gradient in gradients[0].items())
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, atol=0, rtol=0)


def test_a_compiled_model_exports_the_same_graph(tmp_path, quick_compiler):
    import onnxruntime

    made = asr_model(encoder=NESTED)
    made.encoder.call_layer = layer_call.compiled
    made.export(str(tmp_path / "model.onnx"))
    assert made.encoder.call_layer is layer_call.compiled
    assert quick_compiler["unique_graphs"] == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    eager = asr_model(encoder=NESTED)
    for length in (64, 101):
        x, lengths = features(2, length, channels=80), torch.tensor([length, length - 13])
        with torch.no_grad():
            encoded, encoded_lengths = eager.encoder(audio_signal=x, length=lengths)
            log_probs = eager.decoder(encoder_output=encoded).transpose(1, 2)
        (output,) = session.run(None, {"audio_signal": x.numpy(), "length": lengths.numpy()})
        output = torch.from_numpy(output).transpose(1, 2)
        assert_close(valid(output, encoded_lengths), valid(log_probs, encoded_lengths), atol=1e-4, rtol=0)


def saved_and_restored(folder, **settings) -> tuple[ASRModel, ASRModel]:
    """Return a model, and the model restored from a file whose encoder has ``settings``."""
    made = asr_model(encoder=NESTED)
    with open_dict(made.cfg):
        made.cfg.encoder.update(settings)
    made.save_to(str(folder / "model.nemo"))
    return made, ASRModel.restore_from(str(folder / "model.nemo"), map_location="cpu").eval()


@pytest.mark.parametrize("compile, checkpointing", [(True, False), (False, True), (True, True)])
def test_a_saved_model_keeps_both_settings_and_its_names(tmp_path, compile, checkpointing):
    made, restored = saved_and_restored(tmp_path, compile=compile, gradient_checkpointing=checkpointing)
    assert restored.encoder.call_layer is layer_call.layer_call(checkpointing, compile) is not layer_call.plain
    assert restored.state_dict().keys() == made.state_dict().keys()


@pytest.mark.slow
def test_a_restored_model_runs_compiled(tmp_path, quick_compiler):
    made, restored = saved_and_restored(tmp_path, compile=True)
    x = {"audio_signal": features(2, 64, channels=80), "length": torch.tensor([64, 50])}
    with torch.no_grad():
        output, _ = restored.encoder(**x)
        assert_close(output, made.encoder(**x)[0], atol=1e-5, rtol=0)
    assert 0 < quick_compiler["unique_graphs"] <= 2


def _gradients(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for checkpointing in (False, True):
        made = encoder(gradient_checkpointing=checkpointing).train()
        parallel = DistributedDataParallel(made)
        torch.manual_seed(rank)
        parallel(audio_signal=features(2, 101, seed=rank), length=torch.tensor([101, 60]))[0].square().sum().backward()
        torch.save({name: p.grad for name, p in made.named_parameters()}, f"{folder}/{rank}-{checkpointing}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_with_and_without_checkpointing_have_the_same_gradients(tmp_path):
    torch.multiprocessing.spawn(_gradients, args=(str(tmp_path),), nprocs=2)
    read = {(rank, on): torch.load(tmp_path / f"{rank}-{on}.pt") for rank in (0, 1) for on in (False, True)}
    for name, gradient in read[0, False].items():
        assert_close(read[0, True][name], gradient, atol=0, rtol=0)
        assert_close(read[1, True][name], gradient, atol=0, rtol=0)
