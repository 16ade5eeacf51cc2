"""Integration of a flow, and its largest Lyapunov exponent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Flow = Callable[[np.ndarray], np.ndarray]
"""State (..., d) -> its time derivative, (..., d)."""


def rk4(flow: Flow, state: np.ndarray, step: float, count: int) -> np.ndarray:
    """Take `count` steps of the classical fourth-order Runge-Kutta method: (..., d) -> (..., d)."""
    for _ in range(count):
        a = flow(state)
        b = flow(state + 0.5 * step * a)
        c = flow(state + 0.5 * step * b)
        d = flow(state + step * c)
        state = state + step / 6 * (a + 2 * b + 2 * c + d)
    return state


def lyapunov_exponent(
    flow: Flow,
    start: np.ndarray,
    step: float,
    rounds: int,
    *,
    steps: int = 10,
    warm_up: int = 10,
    distance: float = 1e-7,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the largest Lyapunov exponent, per unit of time, and its standard error over the starts.

    Benettin et al. 1980 (Meccanica 15): each state has a neighbour at a small `distance`. After each round of `steps`
    steps, the logarithm of the growth of their distance is recorded, and the neighbour is moved back along the line
    between them. The first `warm_up` rounds, in which the line turns to the fastest direction, are not counted.

    start: (N, d) states; the exponents of the N trajectories are averaged.
    """
    state = np.asarray(start, dtype=np.float64)
    away = np.random.default_rng(seed).standard_normal(state.shape)
    away *= distance / np.linalg.norm(away, axis=-1, keepdims=True)
    growth = np.zeros(len(state))
    for i in range(warm_up + rounds):
        pair = rk4(flow, np.stack([state, state + away]), step, steps)
        state, away = pair[0], pair[1] - pair[0]
        apart = np.linalg.norm(away, axis=-1, keepdims=True)
        away *= distance / apart
        if i >= warm_up:
            growth += np.log(apart[:, 0] / distance)
    found = growth / (rounds * steps * step)
    return float(found.mean()), float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else float("nan")
