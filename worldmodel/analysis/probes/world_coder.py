"""Compression of symbolic trajectories with the predictions of an agent's world model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.probes.compressor import Send, compress, decompress, general_purpose_bits
from worldmodel.analysis.probes.markov import markov_code
from worldmodel.analysis.probes.opening import Opening
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.types import Rollout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WorldCoder:
    """An agent's world model as a `Predictor` of rows.

    A row is the observation's codes, cell by cell, whether the episode is over, and the action (0 at the end of an
    episode, where the environment ignores it). Observations are coded with the head given (h, a), the first of an
    episode with `Opening`, ends with KT's counts, and actions with the agent's policy. Nothing else is sent: the
    receiver has the agent, and computes its memory step by step from the decoded rows, with the context of acting.

    `agent` is in evaluation mode. Codes are one-to-one with observations; actions are Discrete. Decoding needs the same
    floating-point arithmetic: the same machine, libraries and number of threads.
    """

    def __init__(
        self,
        agent: CuriousAgent,
        head: ObservationHead,
        obs_space: gym.Space,
        act_space: gym.Space,
        *,
        context: int,
        rollout_length: int,
    ):
        if not isinstance(act_space, gym.spaces.Discrete):
            raise ValueError(f"actions {act_space}: allowed for compression are Discrete ones")
        self.agent, self.head, self.obs_space, self.act_space = agent, head, obs_space, act_space
        self.context, self.rollout_length = context, rollout_length
        grid = len(obs_space.shape) == 3
        self.height, self.across = obs_space.shape[:2] if grid else (1, 1)
        components = len(head.sizes)
        self.columns = np.arange(head.cells * components).reshape(head.cells, components)
        self.width = self.columns.size + 2

    def reset(self, streams: int) -> None:
        """See `Predictor.reset`."""
        self.actor = self.agent.make_actor(streams, self.context, self.rollout_length)
        self.opening = Opening(self.head.sizes, self.height, self.across)
        self.ends = np.full(2, 0.5)
        self.fresh = np.ones(streams, dtype=bool)  # streams whose next row begins an episode
        self.logits: tuple[Tensor, ...] | None = None  # the head's, for the next row

    @torch.no_grad()
    def row(self, send: Send) -> None:
        """See `Predictor.row`."""
        agent, device = self.agent, self.agent.device
        streams = np.arange(len(self.fresh))
        codes = np.zeros((len(streams), *self.columns.shape), dtype=np.int64)
        if self.fresh.any():
            codes[self.fresh] = self.opening.send(send, streams[self.fresh], self.columns)
        if not self.fresh.all():
            codes[~self.fresh] = self._observations(send, streams[~self.fresh])
        over = send("ends", streams, self.columns.size, np.tile(self.ends, (len(streams), 1))) == 1
        self.ends += np.bincount(over, minlength=2)

        obs = torch.from_numpy(codes.reshape(len(streams), *self.obs_space.shape).astype(self.obs_space.dtype))
        act = torch.zeros(len(streams), dtype=torch.long, device=device)
        output = self.actor.observe(obs.to(device), actions=act)
        if not over.all():
            params, _ = agent.policy(output.h, agent.policy.see(obs.to(device), output.z))
            probs = agent.policy.dist.log_probs(params, agent.policy.temperature).exp().cpu().double().numpy()
            chosen = send("actions", streams[~over], self.columns.size + 1, probs[~over])
            act[torch.from_numpy(~over).to(device)] = torch.from_numpy(chosen).to(device)
        self.actor.rows.act[:, self.actor.cursor - 1] = act
        no = torch.zeros(len(streams), dtype=torch.bool, device=device)
        self.actor.record_outcome(no.float(), no, no, torch.from_numpy(over).to(device))
        now = torch.from_numpy(codes).to(device)
        self.logits, self.fresh = self.head(output.h, agent.model.act(act), now), over

    def _observations(self, send: Send, streams: np.ndarray) -> np.ndarray:
        """Send the next observations, one component of all cells after the other: codes (M, cells, C)."""
        codes = torch.zeros(len(self.fresh), *self.columns.shape, dtype=torch.long, device=self.agent.device)
        for c, column in enumerate(self.columns.T):
            probs = self.head.log_probs(self.logits, codes, c).exp().cpu().double().numpy()[streams]
            where = np.repeat(streams, len(column)), np.tile(column, len(streams))
            sent = send("observations", *where, probs.reshape(-1, probs.shape[-1]))
            codes[streams, :, c] = torch.from_numpy(sent).to(codes.device).view(len(streams), -1)
        return codes[streams].cpu().numpy()

    def symbols(self, rolls: list[Rollout]) -> np.ndarray:
        """Rows (S, R, P) int64 of consecutive rollouts."""
        parts = []
        for roll in rolls:
            codes = self.agent.model.symbols(roll.new_steps(roll.obs)).flatten(2)
            over = ~roll.new_steps(roll.mask)
            act = torch.where(over, 0, roll.new_steps(roll.act))
            parts.append(torch.cat([codes, over[..., None], act[..., None]], 2))
        return torch.cat(parts, 1).cpu().numpy()

    def size_bytes(self) -> int:
        """Size of the receiver's weights: encoder, tokens, memory, head and policy, 4 bytes each."""
        model, policy = self.agent.model, self.agent.policy
        parts = (model.encoder, model.token, model.act, model.memory, self.head, policy.actor_trunk, policy.actor)
        return 4 * (sum(p.numel() for part in parts for p in part.parameters()) + model.start.numel())


def compression_report(coder: WorldCoder, rolls: list[Rollout]) -> dict[str, float | int | str]:
    """Compress rollouts with the model and with other coders, and decompress the model's file.

    Numbers are bits a row (observations, ends and actions) unless the name has another unit; `…_observations` are
    those of the observations alone. The model's own size is not included. gzip, xz and zstd have the best of four
    layouts, the Markov coder a symbol a cell and the best of its orders.

    Raises:
        ValueError: where the decompressed rows differ from the original.
    """
    symbols = coder.symbols(rolls)
    packed = compress(coder, symbols)
    if not np.array_equal(decompress(coder, packed.data), symbols):
        raise ValueError("compression: the decompressed rows differ from the original")
    rows = symbols.shape[0] * symbols.shape[1]
    observed = symbols[..., :-2]
    by_cell = observed.reshape(*observed.shape[:2], *coder.columns.shape)
    merged = np.ravel_multi_index(tuple(np.moveaxis(by_cell, -1, 0)), coder.head.sizes)  # a symbol a cell
    markov = [markov_code(x) for x in (merged, symbols[..., -2:-1], symbols[..., -1:])]
    by_component = by_cell.swapaxes(2, 3).reshape(observed.shape)
    report: dict[str, float | int | str] = {
        "head": "trained with the model" if bool(coder.head.joint) else "fitted on the frozen memory",
        "rows": rows,
        "model": packed.bits / rows,
        "model_cross_entropy": packed.ideal_bits / rows,
        **{f"model_{part.replace(' ', '_')}": bits / rows for part, bits in packed.parts.items()},
        "model_size_bytes": coder.size_bytes(),
        "markov": sum(code.bits for code in markov) / rows,
        "markov_observations": markov[0].bits / rows,
        "markov_order": markov[0].order,
    }
    for ending, layouts in {
        "": (symbols, np.concatenate([by_component, symbols[..., -2:]], 2)),
        "_observations": (observed, by_component),
    }.items():
        sizes = [general_purpose_bits(layout) for layout in layouts]
        report |= {f"{name}{ending}": min(size[name] for size in sizes) / rows for name in sizes[0]}
    return report


def observation_rates(report: dict[str, float | int | str], ideal_bits: float | None = None) -> dict[str, float]:
    """Bits a row of observations alone, by coder, from a `compression_report`.

    The model's include first observations. Where an ideal observer exists, `ideal_bits` are its bits of all
    transitions, to which the model's bits of first observations are added.
    """
    first = report["model_first_observations"]
    rates = {"model": report["model_observations"] + first, "Markov": report["markov_observations"]}
    rates |= {name: report[f"{name}_observations"] for name in ("xz", "zstd", "gzip")}
    return rates if ideal_bits is None else {"ideal observer": ideal_bits / report["rows"] + first, **rates}


def rates_figure(worlds: dict[str, dict[str, float]]) -> Figure:
    """Draw bits a row by coder, a panel for each world: {world: {coder: bits}}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(worlds), 2.6), layout="constrained")
    for axis, (world, rates) in zip(figure.subplots(1, len(worlds), squeeze=False)[0], worlds.items(), strict=True):
        bars = axis.barh(list(rates), list(rates.values()), color=["k" if "ideal" in name else "C0" for name in rates])
        axis.bar_label(bars, fmt="%.3f", fontsize=8)
        axis.invert_yaxis()
        axis.set(title=world, xlabel="bits a row", xlim=(0, 1.25 * max(rates.values())))
    return figure
