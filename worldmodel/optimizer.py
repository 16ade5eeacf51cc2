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
    part_lr: dict[str, float] | None = None,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-5,
    warmup: int = 100,
) -> dict[str, Any]:
    """Optimiser and schedule as Lightning wants them.

    `part_lr` gives parts (encoder, memory, policy, curiosity) a rate of their own. Only matrices decay: not biases,
    norms, embeddings or other vectors (Brown et al. 2020; nanoGPT). `warmup` counts optimiser steps.
    """
    part_lr = dict(part_lr or {})
    if unknown := part_lr.keys() - PARTS.keys():
        raise ValueError(f"optimizer.part_lr={sorted(unknown)}: allowed are {', '.join(PARTS)}")
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        part = next((p for p, prefix in PARTS.items() if name.startswith(prefix)), None)
        decays = parameter.ndim >= 2 and id(parameter) not in embeddings
        key = (float(part_lr.get(part, lr)), weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()],
        betas=tuple(betas),
        eps=eps,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
