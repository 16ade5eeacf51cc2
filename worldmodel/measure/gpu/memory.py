"""The transformer at the size of a small language model, on windows of many short episodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.measure.transformer_speed import gpt2, mixed, product_flops, train_flops, trainer
from worldmodel.model.memory import Transformer
from worldmodel.model.memory.mask import additive, visible

DIM, DEPTH, HEADS = 1024, 10, 16  # 126 M parameters in the blocks alone
TOKENS = 32_768  # per batch
EPISODE = 128  # mean number of rows of an episode
GPT2 = "GPT2Model"
LIMIT_S = 150.0  # no other model is started after this time; compilation dominates it


class Rival(NamedTuple):
    """Model to be timed."""

    make: Callable[[], nn.Module]
    own: bool  # this project's, not that of `transformers`
    compiled: bool


def memory(folder: Path, scale: float) -> dict[str, Any]:
    """Training steps of the transformer (1024 wide, 10 deep, 16 heads) in bf16-mixed precision with AdamW.

    The batches have 32,768 rows in windows of 1,024 and of 4,096, cut into episodes of 128 rows on average; attention
    is within an episode. The times are medians. The peak is that of a bf16 product of 8192 by 8192 matrices. `of_peak`
    counts the linear layers' products (6 per token and parameter), `of_peak_with_attention` also the causal half of
    attention, masked or not.
    """
    began, peak, rows = time.monotonic(), bf16_peak(), []
    asked = [(length, *x) for length in (1024, 4096) for x in rivals(length, few=length > 1024).items()]
    for length, name, rival in sorted(asked, key=lambda x: x[2].compiled):  # uncompiled models first
        row: dict[str, Any] = {"rows": length, "model": name, "error": "left out for want of time"}
        if time.monotonic() - began < LIMIT_S:
            x, episode = windows(max(round(TOKENS * scale) // length, 1), length)
            row |= measured(rival, x, episode, peak, scale)
        print(f"{time.monotonic() - began:.0f} s: {row}", flush=True)
        rows.append(row)
    rows.sort(key=lambda row: row["rows"])
    for row in rows:
        theirs = next((r.get("tokens_per_s") for r in rows if r["model"] == GPT2 and r["rows"] == row["rows"]), None)
        row["times_gpt2"] = row["tokens_per_s"] / theirs if theirs and row.get("tokens_per_s") else None
    return {"bf16_peak_tflops": peak / 1e12, "training": rows}


def acting(folder: Path, scale: float) -> dict[str, Any]:
    """A cached step of the default memory (128 wide, 2 deep) and of the large one, and the encoding of a whole window.

    256 environments, at 32 and at 256 rows of context; the window has 256 rows. The times are medians, in milliseconds.
    """
    rows = []
    for dim, depth, heads in ((128, 2, 4), (DIM, DEPTH, HEADS)):
        for kv_heads in (1, heads):
            model = Transformer(dim, depth, heads, kv_heads).cuda().eval()
            rows.append({"dim": dim, "depth": depth, "kv_heads": kv_heads, **cached(model, envs=256)})
    return {"acting": rows}


@torch.no_grad()
def cached(model: Transformer, envs: int) -> dict[str, float]:
    """Return the milliseconds of a step with a cache and of the whole window."""
    x = torch.randn(envs, 256, model.dim, device="cuda")
    episode = torch.zeros(envs, 256, dtype=torch.long, device="cuda")
    valid = torch.ones_like(episode, dtype=torch.bool)

    def step(rows: int) -> Callable[[], None]:
        state = model.prefill(x[:, :rows], episode[:, :rows], valid[:, :rows], 257)[1]

        def take() -> None:
            state.length = rows  # the same step again
            model.step(x[:, 0], episode[:, 0], valid[:, 0], state)

        return take

    with torch.autocast("cuda", torch.bfloat16):
        short, long = (1e3 * seconds(step(rows), 50) for rows in (32, 256))
        window = 1e3 * seconds(lambda: model(x, episode, valid), 10)
    ratios = {"ratio": long / short, "window_ms": window, "window_over_step": window / long}
    return {"step_32_ms": short, "step_256_ms": long, **ratios}


def seconds(call: Callable[[], Any], times: int) -> float:
    """Return the median over `times` synchronised calls, after three warm-up calls."""
    took = []
    for i in range(times + 3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if i >= 3:
            took.append(time.perf_counter() - began)
    return sorted(took)[len(took) // 2]


def bf16_peak(size: int = 8192) -> float:
    """Return the FLOP/s of a large square product of random bf16 matrices."""
    a, b = torch.randn(2, size, size, device="cuda", dtype=torch.bfloat16)
    return 2 * size**3 / seconds(lambda: a @ b, 20)


def windows(batch: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return inputs (batch, rows, DIM) and episodes (batch, rows) with uniformly random ends."""
    torch.manual_seed(0)
    ends = torch.rand(batch, rows, device="cuda") < 1 / EPISODE
    return torch.randn(batch, rows, DIM, device="cuda"), ends.long().cumsum(1)


def rivals(rows: int, few: bool) -> dict[str, Rival]:
    """Return the models to be timed on windows of this many rows, by name."""

    def ours(attention: str, kv_heads: int, compiled: bool) -> Rival:
        return Rival(lambda: Transformer(DIM, DEPTH, HEADS, kv_heads, attention=attention), True, compiled)

    def theirs(compiled: bool) -> Rival:
        return Rival(lambda: gpt2(DIM, DEPTH, 0.0, HEADS, rows), False, compiled)

    found = {
        GPT2: theirs(False),
        "sdpa": ours("sdpa", HEADS, False),
        "flex": ours("flex", HEADS, False),
        "flex, compiled": ours("flex", HEADS, True),
        "sdpa, compiled": ours("sdpa", HEADS, True),
    }
    more = {f"{GPT2}, compiled": theirs(True), "flex, kv_heads=1, compiled": ours("flex", 1, True)}
    return found if few else found | more


def measured(rival: Rival, x: Tensor, episode: Tensor, peak: float, scale: float) -> dict[str, Any]:
    """Return the figures of a training step; if it fails, `error` has the reason."""
    batch, length, _ = x.shape
    model, valid = rival.make().cuda(), torch.ones_like(episode, dtype=torch.bool)
    mask = None if rival.own else additive(visible(episode, valid))
    torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()

    def forward(model: nn.Module) -> Tensor:
        if rival.own:
            return model(x, episode, valid)
        return model(inputs_embeds=x, attention_mask=mask).last_hidden_state

    if rival.compiled:
        model.compile()
    step, began = trainer(model, mixed(forward, "cuda")), time.monotonic()
    try:
        step()
        torch.cuda.synchronize()
        first = time.monotonic() - began
        took = seconds(step, max(round(10 * scale), 3))
    except Exception as error:  # torch.compile raises errors of any kind
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"}
    row = {
        "error": None,
        "parameters_m": sum(p.numel() for p in model.parameters()) / 1e6,
        "first_step_s": first,
        "ms": took * 1e3,
        "tokens_per_s": batch * length / took,
        "gb": torch.cuda.max_memory_allocated() / 2**30,
    }
    if not rival.own:
        return row | {"of_peak": None, "of_peak_with_attention": None}
    flops = product_flops(model, batch * length), train_flops(model, batch * length, length)
    return row | {"of_peak": flops[0] / took / peak, "of_peak_with_attention": flops[1] / took / peak}
