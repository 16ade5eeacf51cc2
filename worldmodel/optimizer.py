"""AdamW with decay groups, a learning rate for each part, and a warm-up."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PARTS = {
    "encoder": "model.encoder.",
    "memory": "model.memory.",
    "policy": "policy.",
    "curiosity": "curiosity.",
}


def make_adamw(
    module: nn.Module,
    *,
    lr: float = 1e-3,
    part_lr: dict[str, float | None] | None = None,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-5,
    warmup: int = 100,
) -> dict[str, Any]:
    """Optimiser and schedule as Lightning wants them.

    `part_lr` gives parts (encoder, memory, policy, curiosity) a rate of their own. Only matrices decay: not biases,
    norms, embeddings or other vectors (Brown et al. 2020; nanoGPT). `warmup` counts optimiser steps.
    """
    part_lr = {k: v for k, v in (part_lr or {}).items() if v is not None}
    if unknown := part_lr.keys() - PARTS.keys():
        raise ValueError(f"optimizer.part_lr={sorted(unknown)}: allowed are {', '.join(PARTS)}")
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    # A group for each part and kind, whatever the rates: a run goes on with other ones.
    groups: dict[tuple[str | None, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            part = next((p for p, prefix in PARTS.items() if name.startswith(prefix)), None)
            decays = parameter.ndim >= 2 and id(parameter) not in embeddings
            groups.setdefault((part, decays), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": params, "lr": float(part_lr.get(part, lr)), "weight_decay": weight_decay if decays else 0.0}
            for (part, decays), params in groups.items()
        ],
        betas=tuple(betas),
        eps=eps,
        fused=True,
    )
    optimizer._step_supports_amp_scaling = False  # with it, Lightning would not clip gradients in mixed precision
    optimizer.register_load_state_dict_pre_hook(_keep_settings)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": WarmUp(optimizer, warmup), "interval": "step"}}


class WarmUp(torch.optim.lr_scheduler.LambdaLR):
    """Rates rise linearly over the first `steps` steps. A restart takes over the step, not the rates."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int):
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / max(1, steps)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"base_lrs": self.base_lrs})
        self._last_lr = [lr * rise(self.last_epoch) for lr, rise in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


def _keep_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Rates, decay and the like are the configuration's; only the moments come from the checkpoint."""
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=False)
    groups = [there | {k: v for k, v in here.items() if k != "params"} for there, here in pairs]
    return state | {"param_groups": groups}
