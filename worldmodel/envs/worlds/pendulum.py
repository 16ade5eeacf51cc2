"""Double pendulum: chaos with separate scales of simulation and observation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from worldmodel.envs.worlds.base import Worlds
from worldmodel.envs.worlds.chaos import lyapunov_exponent, rk4
from worldmodel.errors import check_range

GRAVITY = 9.81
_PUSHED = 60.0  # s of constant torque for which the bounds of the velocities hold
_DRIFT = 1.0  # m g l, of the integration with the coarsest step
OUTPUTS = ("x2", "y2", "x1", "y1", "w1", "w2")
"""Entries of an observation, the most informative first.

x, y: positions of the lower (2) and the upper (1) bob, in arm lengths, y up. w: angular velocities of the arms, rad/s.
"""


class Pendulums(Worlds):
    """N copies of a frictionless double pendulum of two equal masses (1 kg) on two massless arms (1 m).

    The scales of simulation and observation are independent:
        step         s, of the integration (RK4). In a minute at energy 0 the energy drifts by up to 2e-5 m g l with
                     0.005, 5e-4 with 0.01, 0.8 with 0.05; 0.001 is a reference (1e-9 in 10 s)
        interval     s, between two observations; a whole number of steps
        resolution   observations are rounded to multiples of it; 0: no rounding
        dim          number of entries of `OUTPUTS`; 6 are the whole state, fewer are a POMDP

    energy: of every episode, in units of m g l, from -3 (hanging still) to 3 (standing still) and beyond. Above about
        -1.5 the motion is chaotic; its Lyapunov time is 4.7 s at -1, 1.1 s at 0, 0.8 s at 1.
    torque: N m on the upper arm by actions 0, 1, 2: none, positive, negative. 0: there is one action, without effect,
        and the energy is constant.

    The bounds of the velocities hold for `_PUSHED` seconds of constant torque in one direction; beyond them a velocity
    is shown as the bound.

    `info`: state (N, 4), the exact angles from hanging down (rad) and angular velocities (rad/s).

    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        num_envs: int,
        step: float = 0.005,
        interval: float = 0.05,
        resolution: float = 0.0,
        dim: int = 6,
        energy: float = 0.0,
        torque: float = 0.0,
        max_episode_steps: int = 200,
    ):
        if not (step > 0 and interval >= step and abs(interval / step - round(interval / step)) < 1e-6):
            raise ValueError(f"env.kwargs.interval={interval}: allowed are whole multiples of env.kwargs.step={step}")
        check_range("env.kwargs.resolution", resolution, "[0, inf)")
        check_range("env.kwargs.dim", dim, f"[1, {len(OUTPUTS)}]", whole=True)
        check_range("env.kwargs.energy", energy, "(-3, 100]")
        bounds = (_bounds(energy, torque) + resolution)[:dim].astype(np.float32)
        obs_space = gym.spaces.Box(-bounds, bounds, dtype=np.float32)
        act_space = gym.spaces.Discrete(3 if torque else 1)
        super().__init__(num_envs, obs_space, act_space, max_episode_steps)
        self.integration_step, self.interval, self.resolution, self.energy = step, interval, resolution, energy
        self.torques = np.array([0.0, torque, -torque])
        self._state = np.zeros((num_envs, 4))

    def _advance(self, act: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        torque = self.torques[act]
        count = round(self.interval / self.integration_step)
        self._state = rk4(lambda s: flow(s, torque), self._state, self.integration_step, count)
        if new.any():
            self._state[new] = sample_states(self.generator, int(new.sum()), self.energy)
        self._state[:, :2] = (self._state[:, :2] + np.pi) % (2 * np.pi) - np.pi
        return self._observe(), np.zeros(self.num_envs), {"state": self._state}

    def _observe(self) -> np.ndarray:
        obs = outputs_of(self._state)[:, : self.single_observation_space.shape[0]]
        if self.resolution:
            obs = np.round(obs / self.resolution) * self.resolution
        space = self.single_observation_space
        return np.clip(obs.astype(np.float32), space.low, space.high)

    def lyapunov_time(self, seconds: float = 100.0, copies: int = 64, seed: int = 0) -> tuple[float, float]:
        """Return the seconds in which, without torque, a small error grows e-fold, and their standard error.

        The integration has steps of 10 ms, over `copies` trajectories of `seconds` each.
        """
        start = sample_states(np.random.default_rng(seed), copies, self.energy)
        exponent, error = lyapunov_exponent(flow, start, 0.01, round(seconds / 0.1), seed=seed)
        return 1 / exponent, error / exponent**2


def _bounds(energy: float, torque: float) -> np.ndarray:
    """Return the largest absolute values (6,) of `OUTPUTS`.

    With e the energy above hanging still, the kinetic energy w1^2 + w2^2 / 2 + w1 w2 cos(d), of at most g e, gives
    w1^2 <= 2 g e and w2^2 <= 4 g e. Then de/dt = torque w1 / g gives d sqrt(e)/dt <= torque / sqrt(2 g).
    """
    root = np.sqrt(energy + 3 + _DRIFT) + _PUSHED * abs(torque) / np.sqrt(2 * GRAVITY)
    return np.array([2.0, 2.0, 1.0, 1.0, np.sqrt(2 * GRAVITY) * root, 2 * np.sqrt(GRAVITY) * root])


def outputs_of(state: np.ndarray) -> np.ndarray:
    """Return the entries of `OUTPUTS` (..., 6) for angles and angular velocities (..., 4)."""
    a, b, *turning = np.moveaxis(state, -1, 0)
    x1, y1 = np.sin(a), -np.cos(a)
    return np.stack([x1 + np.sin(b), y1 - np.cos(b), x1, y1, *turning], -1)


def state_of(outputs: np.ndarray) -> np.ndarray:
    """Return angles and angular velocities (..., 4) for the entries of `OUTPUTS` (..., 6).

    For entries that match no state, such as rounded ones, the directions are used.
    """
    x2, y2, x1, y1, w1, w2 = np.moveaxis(outputs, -1, 0)
    return np.stack([np.arctan2(x1, -y1), np.arctan2(x2 - x1, y1 - y2), w1, w2], -1)


def flow(state: np.ndarray, torque: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the time derivatives of angles and angular velocities: (..., 4) -> (..., 4).

    Lagrange's equations, with d = angle 1 - angle 2:

        2 a1 + cos(d) a2 = torque - sin(d) w2^2 - 2 g sin(angle 1),
        cos(d) a1 + a2   = sin(d) w1^2 - g sin(angle 2).
    """
    one, two, w1, w2 = np.moveaxis(state, -1, 0)
    sin, cos = np.sin(one - two), np.cos(one - two)
    first = torque - sin * w2 * w2 - 2 * GRAVITY * np.sin(one)
    second = sin * w1 * w1 - GRAVITY * np.sin(two)
    scale = 1 / (2 - cos * cos)
    return np.stack([w1, w2, (first - cos * second) * scale, (2 * second - cos * first) * scale], -1)


def energy_of(state: np.ndarray) -> np.ndarray:
    """Return the kinetic and potential energy in units of m g l: (..., 4) -> (...)."""
    one, two, w1, w2 = np.moveaxis(state, -1, 0)
    kinetic = w1 * w1 + 0.5 * w2 * w2 + w1 * w2 * np.cos(one - two)
    return kinetic / GRAVITY - 2 * np.cos(one) - np.cos(two)


def sample_states(generator: np.random.Generator, count: int, energy: float) -> np.ndarray:
    """Draw (count, 4) states of one energy: any angles that it allows, and velocities in any direction."""
    found = np.empty((0, 4))
    while len(found) < count:
        angles = generator.uniform(-np.pi, np.pi, (max(count, 64), 2))
        spare = energy + 2 * np.cos(angles[:, 0]) + np.cos(angles[:, 1])  # left for the motion, in m g l
        angles, spare = angles[spare >= 0], spare[spare >= 0]
        velocity = generator.standard_normal(angles.shape)
        one, two = velocity.T
        kinetic = one * one + 0.5 * two * two + one * two * np.cos(angles[:, 0] - angles[:, 1])
        velocity *= np.sqrt(spare * GRAVITY / kinetic)[:, None]
        found = np.concatenate([found, np.concatenate([angles, velocity], 1)])
    return found[:count]
