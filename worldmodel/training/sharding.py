"""Parameters shared out over the ranks (FSDP2), for memories too large to be on each of them whole."""

from __future__ import annotations

import lightning as L
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from worldmodel.errors import ConfigError
from worldmodel.model.memory import Transformer


def shard(module: L.LightningModule, mesh: DeviceMesh) -> None:
    """Share out parameters, gradients and the optimiser's moments over `mesh`, each block of the transformer a group
    of its own and all else another.

    A group is gathered when it is first used, and stays whole until its backward pass (ZeRO's second stage): acting
    reads the blocks hundreds of times between two steps of the optimiser. Raises ConfigError for other memories.
    """
    memory = module.agent.model.memory
    if not isinstance(memory, Transformer):
        raise ConfigError(f"memory={type(memory).__name__.lower()}: allowed with sharded parameters is transformer")
    for block in (*memory.attentions, *memory.feedforwards):
        fully_shard(block, mesh=mesh, reshard_after_forward=False)
    for attention in memory.attentions:
        register_fsdp_forward_method(attention, "step")
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    for method in ("training_step", "with_full_weights"):  # they, not `forward`, are called from outside
        register_fsdp_forward_method(module, method)
