"""Trajectories of symbols, compressed with what an agent's world model predicts of them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.actor import Actor
from worldmodel.module import CuriousAgent
from worldmodel.observation_head import ObservationHead
from worldmodel.probes.compressor import compress, decompress, general_purpose_bits
from worldmodel.probes.markov import markov_code
from worldmodel.types import Rollout, map_obs


class WorldCoder:
    """An agent's world model as a `Predictor` of rows: the observation's codes, component by component over all cells;
    whether the episode is over; the action (0 where it is over and so ignored).

    Observations cost what the head says given (h, a); the first of an episode, which no transition predicts, and the
    ends of episodes cost what adaptive counts say, per cell. Actions cost what the agent's own policy says, so a
    policy that knows its mind is cheap. Nothing else is sent: the receiver has the agent, and its memory comes about
    step by step from what it has decoded, with the context of acting.

    `agent` was loaded for evaluation. Codes and actions are one-to-one with observations and actions; Discrete actions
    only. Bits agree between machines only where their floating-point arithmetic does.
    """

    def __init__(
        self,
        agent: CuriousAgent,
        head: ObservationHead,
        obs_space: gym.Space,
        act_space: gym.Space,
        *,
        context: int,
        horizon: int,
    ):
        if not isinstance(act_space, gym.spaces.Discrete):
            raise ValueError(f"actions {act_space}: allowed for compression are Discrete ones")
        self.agent, self.head, self.obs_space, self.act_space = agent, head, obs_space, act_space
        self.context, self.horizon = context, horizon
        self.cells, self.sizes = head.cells, head.sizes
        symbols = self.cells * len(self.sizes)
        self.stages = (
            *(slice(i * self.cells, (i + 1) * self.cells) for i in range(len(self.sizes))),
            slice(symbols, symbols + 1),
            slice(symbols + 1, symbols + 2),
        )

    def reset(self, streams: int) -> None:
        model, policy = self.agent.model, self.agent.policy
        self.actor = Actor(
            model,
            policy,
            self.act_space,
            num_envs=streams,
            context=self.context,
            horizon=self.horizon,
            device=self.agent.device,
        )
        self.fresh = np.ones(streams, dtype=bool)  # streams whose next row begins an episode
        self.logits: tuple[Tensor, ...] | None = None  # of the head, for the next row
        # counts of first observations, given the cell and its first component; of episodes' ends
        self.firsts = [
            np.full((self.cells, self.sizes[0] if i else 1, size), 1 / size) for i, size in enumerate(self.sizes)
        ]
        self.ends = np.full(2, 0.5)

    @torch.no_grad()
    def predict(self, stage: int, row: np.ndarray) -> np.ndarray:
        """See `Predictor.predict`."""
        if stage < len(self.sizes):
            probs = self._first(stage, row)
            if self.logits is not None and not self.fresh.all():
                codes = torch.from_numpy(self._codes(row)).to(self.agent.device)
                known = self.head.log_probs(self.logits, codes, stage).exp().cpu().double().numpy()
                probs = np.where(self.fresh[:, None, None], probs, known)
            return probs
        if stage == len(self.sizes):
            return np.broadcast_to(self.ends / self.ends.sum(), (len(row), 1, 2))
        probs = self._act(row)
        probs[row[:, -2] == 1] = np.eye(probs.shape[1])[0]
        return probs[:, None]

    @torch.no_grad()
    def update(self, row: np.ndarray) -> None:
        """See `Predictor.update`."""
        codes, over = self._codes(row), row[:, -2] == 1
        for n in np.flatnonzero(self.fresh):
            for i, counts in enumerate(self.firsts):
                counts[np.arange(self.cells), codes[n, :, 0] if i else 0, codes[n, :, i]] += 1
        self.ends += np.bincount(row[:, -2], minlength=2)
        actor, device = self.actor, self.agent.device
        act = torch.from_numpy(row[:, -1].copy()).to(device)
        actor.rows.act[:, actor.row - 1] = act
        no = torch.zeros(len(row), dtype=torch.bool, device=device)
        actor.feedback(no.float(), no, no, torch.from_numpy(over).to(device))
        self.logits = self.head(self.h, self.agent.model.act(act))
        self.fresh = over

    def symbols(self, rolls: list[Rollout]) -> np.ndarray:
        """Rollouts that follow each other in time -> rows (S, R, P) int64."""
        model, parts = self.agent.model, []
        for roll in rolls:
            codes = model.symbols(map_obs(roll.tail, roll.obs))
            over = ~roll.tail(roll.mask)
            act = torch.where(over, 0, roll.tail(roll.act))
            parts.append(torch.cat([codes.transpose(2, 3).flatten(2), over[..., None], act[..., None]], 2))
        return torch.cat(parts, 1).cpu().numpy()

    def size_bytes(self) -> int:
        """What the receiver must have: the weights of encoder, tokens, memory, head and policy, 4 bytes each."""
        model = self.agent.model
        parts = (model.encoder, model.token, model.act, model.memory, self.head, self.agent.policy.trunk,
                 self.agent.policy.actor)  # fmt: skip
        return 4 * (sum(p.numel() for part in parts for p in part.parameters()) + model.start.numel())

    def _codes(self, row: np.ndarray) -> np.ndarray:
        """(S, P) -> (S, cells, C)."""
        return row[:, :-2].reshape(len(row), len(self.sizes), self.cells).transpose(0, 2, 1).copy()

    def _first(self, component: int, row: np.ndarray) -> np.ndarray:
        """Probabilities (S, cells, size) of an episode's first observation, from counts."""
        given = self._codes(row)[..., 0] if component else np.zeros((len(row), self.cells), dtype=np.int64)
        counts = self.firsts[component][np.arange(self.cells), given]
        return counts / counts.sum(-1, keepdims=True)

    def _act(self, row: np.ndarray) -> np.ndarray:
        """Take the observation in; the policy's probabilities (S, actions)."""
        codes = self._codes(row).reshape(len(row), *self.obs_space.shape)
        obs = torch.from_numpy(codes.astype(self.obs_space.dtype)).to(self.agent.device)
        thought = self.actor.observe(obs, actions=torch.zeros(len(row), dtype=torch.long, device=self.agent.device))
        self.h = thought.h
        params, _ = self.agent.policy(thought.h, thought.z)
        return self.agent.policy.dist.probs(params, self.agent.policy.temperature).cpu().double().numpy()


def compression_report(coder: WorldCoder, rolls: list[Rollout]) -> dict[str, float | int | str | bool]:
    """Compress rollouts with the model, decompress them, and hold the size against what others need for the same rows
    (observations, ends, actions). Bits a row, unless the name says otherwise.

    Raises ValueError where what comes back is not what went in.
    """
    symbols = coder.symbols(rolls)
    packed = compress(coder, symbols)
    if not np.array_equal(decompress(coder, packed.data), symbols):
        raise ValueError("compression: what came back is not what went in")
    rows, cells, components = symbols.shape[0] * symbols.shape[1], coder.cells, len(coder.sizes)
    observed = symbols[..., :-2].reshape(*symbols.shape[:2], components, cells)
    merged = np.ravel_multi_index(tuple(observed.transpose(2, 0, 1, 3)), coder.sizes)  # a symbol a cell
    markov = [markov_code(x) for x in (merged, symbols[..., -2:-1], symbols[..., -1:])]
    others = {name: size / rows for name, size in general_purpose_bits(symbols).items()}
    alone = {f"{name}_observations": size / rows for name, size in general_purpose_bits(symbols[..., :-2]).items()}
    return {
        "head": "joint" if bool(coder.head.joint) else "frozen memory",
        "rows": rows,
        "model": packed.bits / rows,
        "model_cross_entropy": float(packed.stage_bits.sum()) / rows,
        "model_observations": float(packed.stage_bits[:components].sum()) / rows,
        "model_ends": float(packed.stage_bits[-2]) / rows,
        "model_actions": float(packed.stage_bits[-1]) / rows,
        "markov": sum(code.bits for code in markov) / rows,
        "markov_observations": markov[0].bits / rows,
        "markov_order": markov[0].order,
        **others,
        **alone,
        "model_size_bytes": coder.size_bytes(),
        "lossless": True,
    }
