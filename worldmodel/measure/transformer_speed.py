"""Speed of the memory: `python -m worldmodel.speed [threads=2] [rounds=10] [out=speed.json]`.

Training is compared with GPT2Model of `transformers` and with the machine's peak. Acting is compared with longer
contexts and with encoding the whole window. All models of a comparison take turns, so that other load slows all of
them. The result is the best of the rounds; the median shows the load of the machine.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.errors import ConfigError
from worldmodel.files import write_text
from worldmodel.model.memory import Transformer
from worldmodel.model.memory.linear import AVAILABLE, product
from worldmodel.model.memory.mask import additive, visible
from worldmodel.training.exit_codes import run_command

ROWS, HEADS = 64, 4  # T of a training window, and number of heads of every model


def times(rivals: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds per call of each rival: best and median over `rounds`, in turns, after one warm-up round."""
    took: dict[str, list[float]] = {name: [] for name in rivals}
    for i in range(rounds + 1):
        for name, call in rivals.items():
            start = time.perf_counter()
            call()
            if i:
                took[name].append(time.perf_counter() - start)
    return {name: (min(t), sorted(t)[len(t) // 2]) for name, t in took.items()}


def peak_flops() -> float:
    """Return the FLOP/s of the best square float32 product, by either of torch's matrix libraries."""
    best = 0.0
    for n in (256, 512, 1024, 2048):
        a, b = torch.randn(2, n, n)
        rivals = {"mm": lambda a=a, b=b: a @ b}
        if AVAILABLE:
            rivals["onednn"] = lambda a=a, b=b: product(a, b)
        fastest = min(t[0] for t in times(rivals, max(5, int(2e10 / n**3 / 2))).values())
        best = max(best, 2 * n**3 / fastest)
    return best


def product_flops(model: nn.Module, tokens: int) -> int:
    """Return the FLOPs of the linear layers in a training step: 6 per token and matrix parameter."""
    return tokens * 6 * sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


def train_flops(model: Transformer, tokens: int, rows: int = ROWS) -> int:
    """Return `product_flops` plus, for the causal half of attention, 6 depth T D per token."""
    return product_flops(model, tokens) + tokens * 6 * model.depth * rows * model.dim


def trainer(model: nn.Module, forward: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
    """Return a training step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(model).square().mean().backward()
        optimizer.step()

    return step


def products(model: nn.Module, tokens: int) -> Callable[[], None]:
    """Return the matrix products of the linear layers' forward and backward pass: a lower bound of a step's time."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    rows = {width: torch.randn(tokens, width) for m in layers for width in (m.in_features, m.out_features)}

    def run() -> None:
        for layer in layers:
            layer.weight.grad = None  # otherwise gradients would accumulate
            layer(rows[layer.in_features].detach().requires_grad_()).backward(rows[layer.out_features])

    return run


def gpt2(dim: int, depth: int, dropout: float, heads: int = HEADS, rows: int = ROWS) -> nn.Module:
    """Return a GPT2Model without a vocabulary and without a cache."""
    from transformers import GPT2Config, GPT2Model  # only here

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    shape = {"n_embd": dim, "n_layer": depth, "n_head": heads, "n_positions": rows, "vocab_size": 1}
    return GPT2Model(GPT2Config(**shape, **rates, use_cache=False, bos_token_id=0, eos_token_id=0))


def mixed(forward: Callable[[nn.Module], Tensor], device: str = "cpu") -> Callable[[nn.Module], Tensor]:
    """Return the forward pass under autocast, as in `trainer.precision=bf16-mixed`.

    Products are in bfloat16, weights and the rest in float32.
    """

    def autocast(model: nn.Module) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return forward(model)

    return autocast


def training(dim: int, depth: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Time a training step on (batch, 64) windows with one reset each: one row per model, with tokens per second.

    `times_gpt2` compares at the same precision; `of_peak` is in units of the float32 peak at either. `products_*` bound
    these figures: a step of only its matrix products, at these shapes.
    """
    x = torch.randn(batch, ROWS, dim)
    episode = (torch.arange(ROWS) >= torch.randint(1, ROWS, (batch, 1))).long()
    valid = torch.ones(batch, ROWS, dtype=torch.bool)
    mask = additive(visible(episode, valid))
    models = {"transformer": Transformer(dim, depth, HEADS), "kv_heads=heads": Transformer(dim, depth, HEADS, HEADS)}

    def ours(model: nn.Module) -> Tensor:
        return model(x, episode, valid)

    def theirs(model: nn.Module) -> Tensor:
        return model(inputs_embeds=x, attention_mask=mask).last_hidden_state

    rivals = {name: trainer(model, ours) for name, model in models.items()}
    for name, rate in (("GPT2Model dropout=0", 0.0), ("GPT2Model dropout=.1", 0.1)):
        rivals[name] = trainer(gpt2(dim, depth, rate), theirs)
    alone = {name: products(model, batch * ROWS) for name, model in models.items()}
    models |= {f"{name}, bf16-mixed": copy.deepcopy(model) for name, model in models.items()}
    rivals |= {name: trainer(model, mixed(ours)) for name, model in models.items() if name not in rivals}
    rivals["GPT2Model dropout=0, bf16-mixed"] = trainer(gpt2(dim, depth, 0.0), mixed(theirs))
    rivals |= {f"products of {name}": call for name, call in alone.items()}
    peak = peak_flops()
    took = times(rivals, rounds)
    peak = max(peak, peak_flops())
    rows = []
    for name in [name for name in took if not name.startswith("products of ")]:
        best, median = took[name]
        row = {
            "dim": dim,
            "depth": depth,
            "batch": batch,
            "model": name,
            "best_ms": best * 1e3,
            "median_ms": median * 1e3,
        }
        row["tokens_per_s"] = batch * ROWS / best
        precision = name.partition(", ")[2]
        same = f"GPT2Model dropout=0, {precision}" if precision else "GPT2Model dropout=0"
        row["times_gpt2"] = took[same][0] / best
        row["times_gpt2_float32"] = took["GPT2Model dropout=0"][0] / best
        row["times_gpt2_dropout_float32"] = took["GPT2Model dropout=.1"][0] / best
        row |= dict.fromkeys(("of_peak", "products_of_peak", "products_times_gpt2"))
        if name in models:
            row["of_peak"] = train_flops(models[name], batch * ROWS) / best / peak
        if name in alone:
            least = took[f"products of {name}"][0]
            row["products_of_peak"] = product_flops(models[name], batch * ROWS) / least / peak
            row["products_times_gpt2"] = took["GPT2Model dropout=0"][0] / least
        row["peak_gflops"] = peak / 1e9
        rows.append(row)
    return rows


@torch.no_grad()
def acting(depth: int, kv_heads: int, rounds: int, envs: int = 16, dim: int = 128) -> dict[str, Any]:
    """Time a cached step at 32 and at 256 rows of context, and the encoding of a whole window of 256 rows."""
    model = Transformer(dim, depth, HEADS, kv_heads).eval()
    x, episode = torch.randn(envs, 256, dim), torch.zeros(envs, 256, dtype=torch.long)
    valid = torch.ones_like(episode, dtype=torch.bool)
    states = {k: model.prefill(x[:, :k], episode[:, :k], valid[:, :k], 257)[1] for k in (32, 256)}

    def step(rows: int) -> Callable[[], None]:
        def take() -> None:
            states[rows].length = rows  # the same step again
            model.step(x[:, 0], episode[:, 0], valid[:, 0], states[rows])

        return take

    took = times({"32": step(32), "256": step(256)}, 40 * rounds)
    took |= times({"window": lambda: model(x, episode, valid)}, rounds)
    (short, short_median), (long, long_median), (window, _) = took["32"], took["256"], took["window"]
    return {
        "threads": torch.get_num_threads(),
        "depth": depth,
        "kv_heads": kv_heads,
        "step_32_us": short * 1e6,
        "step_256_us": long * 1e6,
        "ratio": long / short,
        "ratio_of_medians": long_median / short_median,
        "window_ms": window * 1e3,
        "window_over_step": window / long,
    }


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """Return rows of equal keys as aligned text."""
    cells = [[f"{v:.4g}" if isinstance(v, float) else str("" if v is None else v) for v in r.values()] for r in rows]
    lines = [list(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([title, *("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines), ""])


def arguments(argv: list[str]) -> dict[str, str]:
    """Parse `key=value` words. Raises ConfigError for any other word."""
    given = {"threads": "2", "rounds": "10", "out": ""}
    for word in argv:
        key, _, value = word.partition("=")
        if key not in given or not value:
            raise ConfigError(f"{word}: allowed are {', '.join(f'{k}=' for k in given)}")
        given[key] = value
    for key in ("threads", "rounds"):
        if not given[key].isdecimal() or not int(given[key]):
            raise ConfigError(f"{key}={given[key]}: allowed are whole numbers from 1")
    return given


def main() -> None:
    """Measure, print, and with `out` write JSON."""
    given = arguments(sys.argv[1:])
    rounds = int(given["rounds"])
    torch.set_num_threads(int(given["threads"]))
    torch.manual_seed(0)
    train = [*training(128, 3, 32, rounds), *training(256, 6, 16, rounds)]
    print(table("training step, T = 64, float32 and bf16-mixed", train))
    act = []
    for threads in sorted({1, int(given["threads"])}):
        torch.set_num_threads(threads)
        act += [acting(depth, kv_heads, rounds) for depth in (2, 3) for kv_heads in (1, HEADS)]
    print(table("acting, 16 environments, dim 128", act))
    if given["out"]:
        write_text(Path(given["out"]), json.dumps({"training": train, "acting": act}, indent=1))


if __name__ == "__main__":
    run_command(main, hydra=False)
