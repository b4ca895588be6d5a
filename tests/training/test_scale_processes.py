"""Tests of several processes: DDP and sharded weights give the weights of one process with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nemo_squeezeformer import core
from nemo_squeezeformer.training.recipes import compose
from tests.samples.encoders import SMALL, features

LAYER_NORM = SMALL | {"conv_norm_type": "layer_norm"}  # batch norm uses the statistics of each process
VARIANTS = [
    {},
    {"adaptive_scale": False},
    {"time_reduce_idx": 1, "time_recovery_idx": 2},
    {"untie_biases": False},
    {"self_attention_model": "abs_pos"},
    {"subsampling": "stacking"},
    {"conv_norm_type": "batch_norm"},
    {"stochastic_depth_drop_prob": 0.5},
]


def two_steps(encoder: nn.Module, rank: int = 0, world: int = 1) -> None:
    """Take two SGD steps on the part of four utterances that belongs to ``rank``."""
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    lengths = torch.full((4,), 40)
    for step in range(2):
        y, _ = encoder(features(4, 40, seed=step)[rank::world], lengths[rank::world])
        optimiser.zero_grad()
        (y.square().mean() - y.mean()).backward()
        optimiser.step()


def build(**settings) -> core.SqueezeformerEncoder:
    torch.manual_seed(0)
    return core.SqueezeformerEncoder(**(LAYER_NORM | settings)).train()


def work(rank: int, world: int, folder: str) -> None:
    """Run one of two processes: train with DDP, then with sharded weights, and save the results."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for name, settings in (("layer_norm", {}), ("batch_norm", {"conv_norm_type": "batch_norm"})):
        encoder = build(**settings)
        two_steps(DistributedDataParallel(encoder), rank, world)
        if rank == 0:
            torch.save(encoder.state_dict(), f"{folder}/ddp_{name}.pt")
    try:
        from torch.distributed.fsdp import fully_shard  # torch 2.6 and later
    except ImportError:
        fully_shard = None
    if fully_shard is not None:
        encoder = build()
        mesh = dist.device_mesh.init_device_mesh("cpu", (world,))
        for layer in encoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(encoder, mesh=mesh)
        two_steps(encoder, rank, world)
        whole = get_model_state_dict(encoder, options=StateDictOptions(full_state_dict=True))
        if rank == 0:
            torch.save(whole, f"{folder}/sharded.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(work, args=(2, str(folder)), nprocs=2)
    return folder


def alone(**settings) -> dict[str, Tensor]:
    encoder = build(**settings)
    two_steps(encoder)
    return encoder.state_dict()


def furthest(weights: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one_with_the_whole_batch(together):
    weights = torch.load(together / "ddp_layer_norm.pt")
    assert furthest(weights, alone()) < 1e-6
    assert furthest(weights, build().state_dict()) > 1e-4  # training changes the weights


@pytest.mark.slow
def test_batch_norm_without_synchronization_uses_the_statistics_of_each_process(together):
    apart = furthest(torch.load(together / "ddp_batch_norm.pt"), alone(conv_norm_type="batch_norm"))
    assert apart > 1e-4  # trainer.sync_batchnorm corrects this on GPUs


@pytest.mark.slow
def test_training_with_sharded_weights_gives_the_same_weights(together):
    if not (together / "sharded.pt").exists():
        pytest.skip("this torch has no fully_shard")
    assert furthest(torch.load(together / "sharded.pt"), alone()) < 1e-6


@pytest.fixture
def one_process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: next(iter(settings.items()), ("default",))[0])
def test_every_parameter_is_used_in_every_step_so_ddp_needs_no_search_for_unused_parameters(
    one_process_group, settings
):
    two_steps(DistributedDataParallel(build(**settings)))


def test_ddp_refuses_an_unused_parameter(one_process_group):
    encoder = build()
    encoder.unused = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="were not used in producing loss"):
        two_steps(DistributedDataParallel(encoder))


def test_frozen_layers_train_under_ddp(one_process_group):
    encoder = build()
    encoder.layers[0].requires_grad_(False)
    two_steps(DistributedDataParallel(encoder))


def test_more_gpus_change_only_the_trainer_and_the_peak_learning_rate():
    def composed(*overrides: str) -> dict:
        given = ["trainer.accelerator=cpu", *overrides]
        return OmegaConf.to_container(compose("squeezeformer_ctc_bpe", given), resolve=True)

    one, many = composed("trainer.devices=1"), composed("trainer.devices=8", "trainer.num_nodes=2")
    assert many["model"]["optim"].pop("lr") == 4 * one["model"]["optim"].pop("lr")  # 16 times the global batch
    trainers = [cfg.pop("trainer") for cfg in (one, many)]
    assert {key for key in trainers[0] if trainers[0][key] != trainers[1][key]} == {"devices", "num_nodes"}
    assert one == many


def test_a_strategy_can_be_a_configuration_that_nemo_instantiates():
    from lightning.pytorch.strategies import FSDPStrategy
    from nemo.utils.trainer_utils import resolve_trainer_cfg

    sharded = "trainer.strategy={_target_:lightning.pytorch.strategies.FSDPStrategy,sharding_strategy:SHARD_GRAD_OP}"
    assert isinstance(
        resolve_trainer_cfg(compose("squeezeformer_ctc_char", [sharded]).trainer)["strategy"], FSDPStrategy
    )
