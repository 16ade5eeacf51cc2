"""One-step predictions of features, without a memory."""

from __future__ import annotations

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.curiosity.blocks.ensemble import EnsembleLinear
from worldmodel.errors import check_range
from worldmodel.model.action_embedding import ActionCode


class ForwardModel(nn.Module):
    """`count` forward models: phi_t (*lead, width) and act (*lead, *act_shape) -> (count, *lead, outputs).

    Residual blocks of two layers, with the code of the action concatenated to the input of every layer (Burda et al.
    2019, "Large-scale study of curiosity-driven learning"). Without blocks, these are the two layers of ICM. The
    default of `outputs` is `width`.

    Raises ValueError if `blocks` is negative.
    """

    def __init__(
        self,
        width: int,
        act_space: gym.Space,
        *,
        hidden: int,
        blocks: int = 4,
        count: int = 1,
        outputs: int | None = None,
    ):
        super().__init__()
        check_range("curiosity.blocks", blocks, "[0, inf)", whole=True)
        self.code = ActionCode(act_space)
        more = self.code.width
        last = (2 * max(blocks, 1)) ** -0.5  # so that the sum over blocks does not grow with their number
        self.inp = EnsembleLinear(count, width + more, hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleList(EnsembleLinear(count, hidden + more, hidden, gain) for gain in (2**0.5, last))
            for _ in range(blocks)
        )
        self.out = EnsembleLinear(count, hidden + more, outputs or width, 1.0)

    def forward(self, phi: Tensor, act: Tensor) -> Tensor:
        code = self.code(act).flatten(0, -2)[None]  # (1, rows, code)

        def with_action(x: Tensor) -> Tensor:
            return torch.cat([x, code.expand(len(x), -1, -1)], -1)

        x = F.leaky_relu(self.inp(with_action(phi.flatten(0, -2)[None])))
        for first, second in self.blocks:
            x = x + second(with_action(F.leaky_relu(first(with_action(x)))))
        return self.out(with_action(x)).unflatten(1, phi.shape[:-1])
