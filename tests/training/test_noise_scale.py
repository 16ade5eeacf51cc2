"""The gradient noise scale of quadratics with a known answer, and of the agent."""

from __future__ import annotations

import csv
import math
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.runs import TIMED
from helpers.tiny import EASY, joint_loss, minibatches, tiny_agent
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from worldmodel.distributed import part_at_exit
from worldmodel.learner.curious_agent import Losses
from worldmodel.training.callbacks import NoiseScale
from worldmodel.training.callbacks.noise_scale import noise_and_signal
from worldmodel.types import Minibatch

DIM, MEAN, SPREAD = 20, 0.5, {"model": 1.0, "policy": 0.5}  # each dimension of a gradient at the origin
EXACT = {part: s**2 / MEAN**2 for part, s in SPREAD.items()}


class Part(nn.Module):
    """0.5 |w - x|^2, whose gradient of one sample is w - x."""

    memory_gradient = False

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(DIM))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (self.w - x).square().sum(-1).mean()


class Quadratics(nn.Module):
    """World model and policy with one quadratic each; samples are N(-MEAN, SPREAD^2)."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.model, self.policy, self.metrics = Part(), Part(), {}

    def losses(self, batch: Minibatch) -> Losses:
        terms = {"policy": self.policy(batch.policy)}
        return Losses(terms if batch.model is None else terms | {"model": self.model(batch.model)}, None, {})

    def weighted_sum(self, terms: dict[str, Tensor]) -> Tensor:
        return sum(terms.values())


class Module(L.LightningModule):
    """Takes steps of length 0."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = Quadratics()

    def training_step(self, batch: Minibatch, batch_idx: int) -> Tensor:
        return self.agent.weighted_sum(self.agent.losses(batch).terms)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Stream:
    """Minibatches of 6 sequences for the policy; the world model takes its turn with every second one."""

    def __init__(self, steps: int, model_every: int = 2):
        self.steps, self.model_every = steps, model_every

    def __len__(self) -> int:
        return self.steps

    def __iter__(self):
        draw = torch.Generator().manual_seed(torch.initial_seed())
        for step in range(self.steps):
            model, policy = (torch.randn(6, DIM, generator=draw) * SPREAD[p] - MEAN for p in ("model", "policy"))
            yield Minibatch(None if step % self.model_every else model, policy)


class Data(L.LightningDataModule):
    def __init__(self, stream: Stream):
        super().__init__()
        self.stream = stream

    def train_dataloader(self) -> Stream:
        torch.manual_seed(self.trainer.global_rank)
        return self.stream

    def transfer_batch_to_device(self, batch: Minibatch, device: torch.device, dataloader_idx: int) -> Minibatch:
        return batch


class Write(L.Callback):
    def __init__(self, folder: Path):
        self.folder = folder

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        part_at_exit()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.save(pl_module.agent.metrics, self.folder / f"row.{trainer.global_rank}")


def fit(folder: Path, stream: Stream, scale: NoiseScale, **settings) -> dict[str, float]:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[scale, Write(folder)], use_distributed_sampler=False,
        default_root_dir=folder, **quiet, **settings,
    )  # fmt: skip
    trainer.fit(Module(), Data(stream))
    return torch.load(folder / "row.0")


def test_two_squared_norms_by_hand() -> None:
    # |G|^2 = 3 and tr(Sigma) = 8: the expected squared norm is 3 + 8 / B
    found = noise_and_signal(torch.tensor(3 + 8 / 2), 2, torch.tensor(3 + 8 / 10), 10)
    torch.testing.assert_close(found, torch.tensor([3.0, 8.0]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate_grad_batches": 4}],
    ids=["every other sequence", "microbatches"],
)
def test_a_quadratic(tmp_path: Path, settings: dict[str, int]) -> None:
    """The mean over many measurements approaches the answer, also with separate turns for the policy."""
    torch.manual_seed(0)
    scale = NoiseScale(every=1, decay=0.9995)
    row = fit(tmp_path, Stream(2000), scale, **settings)
    assert scale.count == (500 if settings else 1000)
    for part, exact in EXACT.items():
        assert row[f"noise_scale_{part}"] == pytest.approx(exact, rel=0.1)
        signal, noise = (scale.averages[part] / (1 - 0.9995**scale.count)).tolist()
        assert signal == pytest.approx(DIM * MEAN**2, rel=0.1) and noise == pytest.approx(
            DIM * SPREAD[part] ** 2, rel=0.1
        )


def test_a_quadratic_on_two_ranks(tmp_path: Path) -> None:
    settings = {"devices": 2, "strategy": DDPStrategy(start_method="forkserver"), "accumulate_grad_batches": 2}
    row = fit(tmp_path, Stream(800, model_every=1), NoiseScale(every=1, decay=0.9995), **settings)
    assert row == pytest.approx(torch.load(tmp_path / "row.1"), rel=1e-3)  # sums of squares are rounded differently
    for part, exact in EXACT.items():
        assert row[f"noise_scale_{part}"] == pytest.approx(exact, rel=0.15)


def test_value_without_a_measurable_gradient() -> None:
    scale = NoiseScale()
    assert math.isnan(scale.value("model"))
    scale.averages["model"] = torch.tensor([-1.0, 4.0])  # all noise
    assert math.isnan(scale.value("model"))
    scale.averages["model"] = torch.tensor([2.0, -4.0])
    assert scale.value("model") == 0


@pytest.mark.parametrize("change", [{"every": 0}, {"decay": 1.0}])
def test_bad_settings(change: dict[str, float]) -> None:
    (key,) = change
    with pytest.raises(ValueError, match=rf"noise_scale\.{key}="):
        NoiseScale(**change)


@pytest.mark.parametrize("reaches", [True, False])
def test_the_half_is_every_other_sequence(reaches: bool) -> None:
    """Replayed sequences follow: the policy's sequences stay the first of the world model's."""
    overrides = [f"policy.actor.memory_gradient={reaches}", "data.replay_batch=3", "data.replay_capacity=8"]
    agent, stream, cfg = tiny_agent(*EASY, *overrides)
    agent.weights |= {"end": 3.0}
    batch = next(iter(minibatches(agent, stream, cfg)))
    stream.close()
    scale = NoiseScale()
    scale.batch = batch
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    for scale.count, rows in ((0, [0, 2, 4]), (1, [1, 3])):
        draws = torch.get_rng_state()
        found = scale._half(nullcontext(), agent)
        assert torch.equal(draws, torch.get_rng_state()) and all(p.grad is None for p in agent.parameters())
        policy = batch.policy[[r for r in rows if r < 2]]
        joint_loss(agent, Minibatch(batch.model[rows], policy)).backward()
        for part, size in (("model", len(rows)), ("policy", 1)):
            grads = [p.grad for p in getattr(agent, part).parameters() if p.grad is not None]
            assert found[part][1] == size
            torch.testing.assert_close(found[part][0], sum(g.square().sum() for g in grads))
        agent.zero_grad(set_to_none=True)
    assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())


def test_measuring_changes_no_other_metric(cli, tmp_path: Path) -> None:
    common = [*EASY, "total_steps=96", "target=sigreg", "seed=100"]
    for option in ("default", "none"):
        ended = cli(*common, f"noise_scale={option}", f"run_dir={option}")
        assert ended.code == 0, ended.err
    on, off = (list(csv.DictReader((tmp_path / o / "metrics.csv").open(newline=""))) for o in ("default", "none"))
    scales = [(float(row.pop("noise_scale_model")), float(row.pop("noise_scale_policy"))) for row in on]
    assert not math.isnan(scales[0][0]) or not math.isnan(scales[0][1])
    for a, b in zip(on, off, strict=True):
        assert {k: v for k, v in a.items() if k not in TIMED} == {k: v for k, v in b.items() if k not in TIMED}
