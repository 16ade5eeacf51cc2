"""Optimisers and their schedule: AdamW, and Muon for the matrices of the world model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from worldmodel.errors import check_range
from worldmodel.learner.curious_agent import CuriousAgent


def make_adamw(
    agent: CuriousAgent,
    *,
    lr: float = 1e-3,
    part_lr: dict[str, float | None] | None = None,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-5,
    warmup: int = 100,
    cooldown: float = 0.0,
) -> dict[str, Any]:
    """Return AdamW and its schedule, in Lightning's format.

    Args:
        agent: the agent.
        lr: learning rate.
        part_lr: learning rates of single parts (encoder, memory, policy, curiosity).
        weight_decay: of matrices; biases, norms, embeddings and other vectors do not decay (Brown et al. 2020).
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        warmup: optimiser steps over which the rates rise linearly.
        cooldown: last share of the budget, over which the rates fall linearly (Zhai et al. 2022), to 0 after
            the last update.

    Raises:
        ValueError: for unknown parts in `part_lr` and for a `cooldown` out of range.
    """
    return scheduled(_adamw(agent, set(), lr, part_lr, weight_decay, betas, eps), agent, warmup, cooldown)


def make_muon(
    agent: CuriousAgent,
    *,
    matrix_lr: float = 1e-2,
    momentum: float = 0.95,
    ns_steps: int = 5,
    lr: float = 1e-3,
    part_lr: dict[str, float | None] | None = None,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-5,
    warmup: int = 100,
    cooldown: float = 0.0,
) -> dict[str, Any]:
    """Muon (Jordan et al. 2024) for the matrices of the world model's hidden layers, AdamW for everything else.

    Muon's step is orthogonalised and scaled to the size of a step of AdamW (Liu et al. 2025, arXiv 2502.16982).

    Args:
        agent: the agent.
        matrix_lr: learning rate of Muon.
        momentum: momentum of Muon.
        ns_steps: Newton-Schulz iterations of the orthogonalisation.
        lr: learning rate of AdamW.
        part_lr: see `make_adamw`; the rates apply to the parameters of a part that AdamW optimises.
        weight_decay: of all matrices.
        betas: see `make_adamw`.
        eps: see `make_adamw`.
        warmup: see `make_adamw`.
        cooldown: see `make_adamw`.

    Raises:
        ValueError: for a world model without hidden matrices, and as in `make_adamw`.
    """
    embeddings = _embeddings(agent)
    hidden = {id(p) for p in agent.model.hidden_matrices()} - embeddings
    matrices = [p for p in agent.parameters() if p.requires_grad and p.ndim == 2 and id(p) in hidden]
    if not matrices:
        raise ValueError("optimizer=muon: the world model has no matrices for it, allowed is optimizer=adamw")
    muon = torch.optim.Muon(
        matrices,
        lr=matrix_lr,
        weight_decay=weight_decay,
        momentum=momentum,
        ns_steps=ns_steps,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = _adamw(agent, {id(p) for p in matrices}, lr, part_lr, weight_decay, betas, eps)
    return scheduled(Together(muon, adamw), agent, warmup, cooldown)


def scheduled(optimizer: torch.optim.Optimizer, agent: CuriousAgent, warmup: int, cooldown: float) -> dict[str, Any]:
    """Return an optimiser and its schedule, in Lightning's format.

    A resumed run takes the settings from its configuration and only the moments from the checkpoint.

    Raises:
        ValueError: for a `cooldown` out of range.
    """
    check_range("optimizer.cooldown", cooldown, "[0, 1]")
    optimizer._step_supports_amp_scaling = False  # with it, Lightning would not clip gradients in mixed precision
    optimizer.register_load_state_dict_pre_hook(_keep_settings)

    def left() -> float:
        """Return the remaining budget in units of the cool-down, before the present update and thus above 0."""
        return (1 - agent.progress) / cooldown if cooldown else 1.0

    schedule = WarmUp(optimizer, warmup, left)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _adamw(
    agent: CuriousAgent,
    left_out: set[int],
    lr: float,
    part_lr: dict[str, float | None] | None,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
) -> torch.optim.AdamW:
    part_lr = {k: v for k, v in (part_lr or {}).items() if v is not None}
    parts = agent.param_groups()
    if unknown := part_lr.keys() - parts.keys():
        raise ValueError(f"optimizer.part_lr={sorted(unknown)}: allowed are {', '.join(parts)}")
    part_of = {id(p): name for name, module in reversed(parts.items()) for p in module.parameters()}
    embeddings = _embeddings(agent)
    # One group per part and kind even if the rates are equal, because a run may be resumed with other rates.
    groups: dict[tuple[str | None, bool], list[nn.Parameter]] = {}
    for parameter in agent.parameters():
        if parameter.requires_grad and id(parameter) not in left_out:
            decays = parameter.ndim >= 2 and id(parameter) not in embeddings
            groups.setdefault((part_of.get(id(parameter)), decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "lr": float(part_lr.get(part, lr)), "weight_decay": weight_decay if decays else 0.0}
            for (part, decays), params in groups.items()
        ],
        betas=tuple(betas),
        eps=eps,
        fused=True,
    )


def _embeddings(module: nn.Module) -> set[int]:
    return {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}


class Together(torch.optim.Optimizer):
    """Several optimisers of disjoint parameters that step, save and load as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        """Let the parts use the groups and the state of the whole."""
        groups = list(self.param_groups)
        for part in self.parts:
            part.param_groups, groups = groups[: len(part.param_groups)], groups[len(part.param_groups) :]
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


class WarmUp(torch.optim.lr_scheduler.LambdaLR):
    """Schedule of rates that rise linearly over the first `steps` steps and fall with `left()` once it is below 1.

    A checkpoint restores the step, not the rates.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, left: Callable[[], float]):
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / max(1, steps)) * min(1.0, max(0.0, left())))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"base_lrs": self.base_lrs})
        self._last_lr = [lr * rise(self.last_epoch) for lr, rise in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


def _keep_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Replace the settings of a checkpoint by those of the configuration, so that only the moments are restored."""
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=False)
    groups = [there | {k: v for k, v in here.items() if k != "params"} for there, here in pairs]
    return state | {"param_groups": groups}
