"""The probability models that probes of labels use: softmax regression, and a perceptron."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@torch.enable_grad()
def fit_softmax(x: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Softmax regression of standardised features by L-BFGS, with a Gaussian prior of precision `penalty` on weights.

    x (N, D), labels (N,) -> a map from features (M, D) to log-probabilities (M, classes) in nats.
    """
    mean, std = x.mean(0), _spread(x)
    inputs = ((x - mean) / std).detach()
    weight = inputs.new_zeros(x.shape[1], classes).requires_grad_()
    bias = inputs.new_zeros(classes).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = 0.5 * penalty * (weight.square().sum() + bias.square().sum()) / len(inputs)
        value = F.cross_entropy(inputs @ weight + bias, labels) + prior
        value.backward()
        return value

    optimizer.step(loss)
    weight, bias = weight.detach(), bias.detach()
    return lambda features: (((features - mean) / std) @ weight + bias).log_softmax(-1)


@torch.enable_grad()
def fit_perceptron(
    x: Tensor, y: Tensor, outputs: int, *, hidden: int = 128, steps: int = 500, batch: int = 512, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """One hidden layer by AdamW, on standardised features (and standardised values).

    y (N,) int64: classes, and the result maps features (M, D) to log-probabilities (M, outputs).
    y (N, outputs) float: values, and the result maps features to values. The caller's random state is left alone.
    """
    labelled = not y.is_floating_point()
    mean, std = x.mean(0), _spread(x)
    centre, scale = (0.0, 1.0) if labelled else (y.mean(0), _spread(y))
    inputs, goals = ((x - mean) / std).detach(), y if labelled else ((y - centre) / scale).detach()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.GELU(), nn.Linear(hidden, outputs)).to(x.device, x.dtype)
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(inputs), (min(batch, len(inputs)),)).to(x.device)
            out = net(inputs[rows])
            loss = F.cross_entropy(out, goals[rows]) if labelled else F.mse_loss(out, goals[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.requires_grad_(False)

    def predict(features: Tensor) -> Tensor:
        out = net((features - mean) / std)
        return out.log_softmax(-1) if labelled else out * scale + centre

    return predict


def _spread(x: Tensor) -> Tensor:
    """Standard deviation per column; 1 where it's constant."""
    std = x.std(0, correction=0)
    return torch.where(std > 1e-8, std, 1.0)
