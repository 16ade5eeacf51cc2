"""Collection of rollouts with the current policy."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodel.envs import Step, VectorEnv
from worldmodel.experience.actor import Actor
from worldmodel.types import Rollout, Sequences, add_fields


class Episodes:
    """Return, length and success of the last finished episodes."""

    def __init__(self, num_envs: int, window: int = 200, success: float | None = None):
        self.success = success
        self.ret, self.length = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self.finished: deque[tuple[float, int]] = deque(maxlen=window)
        self.count = 0
        self.faults = 0  # environments that failed and were replaced

    def add(self, rew: np.ndarray, over: np.ndarray, ignored: np.ndarray) -> None:
        """Add one step of all environments, each argument (N,)."""
        self.ret += rew
        self.length += ~ignored
        for i in np.flatnonzero(over):
            self.finished.append((float(self.ret[i]), int(self.length[i])))
            self.ret[i], self.length[i] = 0.0, 0
            self.count += 1

    def drop(self, fault: np.ndarray) -> None:
        """Count interrupted episodes, fault (N,) bool, as faults without a return."""
        self.ret[fault], self.length[fault] = 0.0, 0
        self.faults += int(fault.sum())

    def summary(self) -> dict[str, float]:
        """Return means over the window; nan before the first episode has ended, and for an undefined success."""
        if not self.finished:
            return {"return_ext": float("nan"), "success": float("nan"), "length": float("nan")}
        ret, length = np.array(self.finished).T
        success = float("nan") if self.success is None else float((ret > self.success).mean())
        return {"return_ext": float(ret.mean()), "success": success, "length": float(length.mean())}

    def state_dict(self) -> dict[str, Any]:
        running = [self.ret.tolist(), self.length.tolist()]
        finished = [list(x) for x in self.finished]
        return {"finished": finished, "count": self.count, "faults": self.faults, "running": running}

    def load_state_dict(self, state: dict[str, Any], running: bool) -> None:
        """Restore the finished episodes and, if they are still `running`, the current ones."""
        self.finished.extend(tuple(x) for x in state["finished"])
        self.count, self.faults = state["count"], state.get("faults", 0)
        if running:
            self.ret[:], self.length[:] = state["running"]


class Source(Protocol):
    """Source of rollouts. `acts`: its steps are taken in environments, by the present policy."""

    acts: ClassVar[bool]

    def collect(self) -> Rollout: ...


class Collector:
    """Collector of rollouts of T steps of N environments. The memory continues from one rollout to the next.

    `greedy` takes the most probable action instead of a sampled one, for evaluation.
    """

    acts: ClassVar[bool] = True

    def __init__(self, env: VectorEnv, actor: Actor, episodes: Episodes, greedy: bool = False):
        self.env, self.actor, self.episodes, self.greedy = env, actor, episodes, greedy
        self.obs = env.reset()
        self.info = env.info  # belongs to self.obs
        self.pending = False  # the last observation of the window has a value and no action yet

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Shift the window, act T times, and compute the value of the observation that closes the last transition."""
        actor, device = self.actor, self.actor.device
        if self.pending:
            actor.cursor -= 1  # the closing row of the last rollout is the first row of this one
            actor.shift_window()
        samples, logp, h, z, values, infos = [], [], [], [], [], [self.info]
        for _ in range(actor.rollout_length):
            output = actor.observe(self.obs, self.greedy)
            step: Step = self.env.step(output.act)
            self.episodes.add(step.rew.numpy(), (step.end | step.trunc).numpy(), step.ignored.numpy())
            outcome: tuple[Tensor, ...] = (step.rew, step.end, step.trunc, step.ignored)
            if step.fault is not None:
                self.episodes.drop(step.fault.numpy())
                outcome = (*outcome, step.fault)
            actor.record_outcome(*(x.to(device) for x in outcome))
            self.obs, self.info = step.obs, step.info
            infos.append(step.info)
            if output.sample is not output.act:
                samples.append(output.sample)
            logp.append(output.logp)
            h.append(output.h)
            z.append(output.z)
            values.append(output.values)
        values.append(actor.observe(self.obs).values)
        self.pending = True
        value: Tensor = torch.stack(values, 1)  # (N, T+1, 2)
        assert actor.rows is not None
        rows = actor.rows.map(torch.clone)
        rows.mask[:, -1] = False
        return add_fields(
            Rollout,
            rows,
            sample=torch.stack(samples, 1) if samples else rows.new_steps(rows.act),
            logp=torch.stack(logp, 1),
            value_ext=value[..., 0].contiguous(),
            value_int=value[..., 1].contiguous(),
            h=torch.stack(h, 1),
            z=torch.stack(z, 1),
            info=_stack(infos, device),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and counters, without the environments."""
        actor = self.actor
        return {
            "obs": self.obs,
            "info": {k: torch.from_numpy(v) for k, v in self.info.items()},
            "rows": None if actor.rows is None else actor.rows.tensors(),
            "episode": actor.episode,
            "cursor": actor.cursor,
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], *, same_window: bool, same_envs: bool) -> None:
        """Restore the saved rows if the window has the same size and the environments have the same number.

        With new environments the interrupted episodes end, and their last action has no outcome.
        """
        actor = self.actor
        self.episodes.load_state_dict(state["episodes"], running=same_envs)
        if len(state["episode"]) != actor.num_envs:
            return  # episodes are numbered from 0 in other environments, as in the state of curiosity
        if same_window and state["rows"] is not None:
            actor.rows = Sequences(**state["rows"], num_new=actor.rollout_length).map(lambda x: x.to(actor.device))
            actor.cursor, actor.state = state["cursor"], None
            self.pending = same_envs
        actor.episode = state["episode"].to(actor.device)
        if same_envs:
            self.obs, self.info = state["obs"], {k: v.numpy() for k, v in state["info"].items()}
        else:
            actor.episode = actor.episode + 1


def _stack(infos: list[dict[str, np.ndarray]], device: torch.device) -> dict[str, Tensor]:
    """Stack the arrays (N, ...) of T + 1 steps to tensors (N, T + 1, ...)."""
    keys = [k for k in infos[-1] if all(k in info for info in infos)]
    return {k: torch.from_numpy(np.stack([info[k] for info in infos], 1)).to(device) for k in keys}
