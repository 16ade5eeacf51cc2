"""Sharding of parameters over the ranks (FSDP2), for memories that are too large for one device."""

from __future__ import annotations

import lightning as L
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from worldmodel.errors import ConfigError
from worldmodel.model.memory import Transformer


def shard(module: L.LightningModule, mesh: DeviceMesh) -> None:
    """Shard parameters, gradients and the optimiser's moments over `mesh`.

    Each block of the transformer is one group, and all other parameters are another. A group is gathered at its first
    use and stays gathered until its backward pass (second stage of ZeRO, Rajbhandari et al. 2020), because acting reads
    the blocks hundreds of times between two steps of the optimiser.

    Raises:
        ConfigError: for memories other than the transformer.
    """
    memory = module.agent.model.memory
    if not isinstance(memory, Transformer):
        raise ConfigError(f"memory={type(memory).__name__.lower()}: allowed with sharded parameters is transformer")
    for block in (*memory.attentions, *memory.feedforwards):
        fully_shard(block, mesh=mesh, reshard_after_forward=False)
    for attention in memory.attentions:
        register_fsdp_forward_method(attention, "step")
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    for method in ("training_step", "with_full_weights"):  # called from outside instead of `forward`
        register_fsdp_forward_method(module, method)
