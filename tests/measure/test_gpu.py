"""On a GPU: training of every part, agreement with the CPU, and bitwise resume."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers.runs import run_main
from helpers.tiny import EASY, TINY, clone, fitting, tiny_agent

from worldmodel import evaluate
from worldmodel.measure.reliability.runs import fingerprint
from worldmodel.model.memory import Transformer
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.training.config import CONFIG_DIR

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

STEPS = 32  # an update of the tiny configuration
SIGNALS = sorted(
    p.stem for p in (Path(CONFIG_DIR) / "curiosity").glob("*.yaml") if "published" not in p.stem and p.stem != "random"
)
OTHERS = [
    *(f"target={x}" for x in ("inverse", "ema", "sigreg", "vicreg", "reconstruction")),
    *(
        "memory=gru",
        "memory=mlp",
        "memory.kv_heads=2",
        "memory.position=learned",
        "memory.attention=flex memory.dim=32",
    ),
    *("heads=observation", "heads=recall", "policy=random", "optimizer=muon", "experiment=cartpole"),
    *(f"experiment={x} data.replay_capacity=8 data.replay_batch=1" for x in ("chain_dream", "chain_plan")),
    *("experiment=mess3", "experiment=pendulum", "experiment=multiroom", "env.tv=action", "resets=periodic"),
    *("trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2", "compile=true"),
    *("policy.actor.memory_gradient=true", "data=curious data.replay_capacity=8 data.replay_batch=1"),
]


def trained(run: Path, *overrides: str, updates: int = 2) -> Path:
    goal = [f"run_dir={run}", f"total_steps={updates * STEPS}", "trainer.accelerator=gpu"]
    assert run_main([*fitting(TINY, overrides), *goal]) == 0
    return run


@pytest.mark.parametrize("overrides", [*(f"curiosity={signal}" for signal in SIGNALS), *OTHERS])
def test_everything_runs(overrides: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *overrides.split(), "save.every=1")
    weights = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(w.device.type == "cpu" for w in weights.values()), "it can be read without a GPU"
    assert all(w.isfinite().all() for w in weights.values() if w.is_floating_point())


def test_a_run_is_reproducible_and_resumable(tmp_path: Path) -> None:
    whole = fingerprint(trained(tmp_path / "whole", *EASY, "env.engine=gymnasium", updates=6))
    assert fingerprint(trained(tmp_path / "again", *EASY, "env.engine=gymnasium", updates=6)) == whole
    half = trained(tmp_path / "half", *EASY, "env.engine=gymnasium", updates=3)
    assert fingerprint(half) != whole
    assert (
        run_main([f"checkpoint={half / 'checkpoints' / 'last.ckpt'}", f"run_dir={half}", f"total_steps={6 * STEPS}"])
        == 0
    )
    assert fingerprint(half) == whole


def test_a_report(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *EASY, "heads=observation")
    films = ",imagination" if find_spec("imageio_ffmpeg") else ""
    parts = f"parts=[returns,prediction,curiosity,memory,compression{films}]"
    asked = [f"checkpoint={run / 'checkpoints' / 'last.ckpt'}", "episodes=8", "num_envs=4", "horizons=[1,2]", parts]
    found = []
    for device in ("cuda", "cuda", "cpu"):
        assert run_main([*asked, f"device={device}", f"out={tmp_path / device}"], main=evaluate.main) == 0
        found.append(json.loads((tmp_path / device / "report.json").read_text()))
    again, first, cpu = ({k: x for k, x in r.items() if k not in ("wall_s", "machine")} for r in found)
    assert first == again, "the same arguments give the same numbers"
    assert first.keys() == cpu.keys() and first["compression"]["bit_exact"]


@pytest.mark.parametrize("overrides", [[], ["memory=gru"], ["memory.kv_heads=2"], ["heads=observation"]], ids=str)
def test_losses_and_gradients_equal_those_of_the_cpu(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # or the products of a GRU have ten bits
    torch.manual_seed(0)
    agent, stream, _ = tiny_agent(*EASY, *overrides)
    roll = clone(stream.collector.collect())
    stream.close()
    out = agent.model(roll)
    loss = sum(x.mean() for x in agent.model.losses(out, roll).values())
    loss.backward()
    grads = {k: p.grad.clone() for k, p in agent.model.named_parameters() if p.grad is not None}
    agent.cuda().zero_grad()
    there = roll.map(lambda x: x.cuda())
    found = agent.model(there)
    sum(x.mean() for x in agent.model.losses(found, there).values()).backward()
    assert torch.allclose(found.h.cpu(), out.h, atol=1e-5)
    for name, p in agent.model.named_parameters():
        if name in grads:
            assert torch.allclose(p.grad.cpu(), grads[name], atol=1e-5, rtol=1e-3), name


@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
def test_cache_and_full_pass_agree(kv_heads: int, attention: str) -> None:
    torch.manual_seed(0)
    rows = 160  # more than a block of flex attention
    model = Transformer(64, 2, 4, kv_heads, attention=attention).cuda().eval()
    plain = Transformer(64, 2, 4, kv_heads).cuda().eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(3, rows, 64, device="cuda")
    episode = (torch.arange(rows, device="cuda") >= torch.tensor([[20], [90], [150]], device="cuda")).long()
    valid = torch.ones(3, rows, dtype=torch.bool, device="cuda")
    valid[0, :7] = False
    with torch.no_grad():
        whole = model(x, episode, valid)
        _, state = plain.prefill(x[:, :100], episode[:, :100], valid[:, :100], rows)
        steps = [plain.step(x[:, t], episode[:, t], valid[:, t], state) for t in range(100, rows)]
    assert torch.allclose(torch.stack(steps, 1)[valid[:, 100:]], whole[:, 100:][valid[:, 100:]], atol=2e-5)
