"""Stopwatch that times methods for a while and restores them afterwards."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

REST = "rest"


class Stopwatch:
    """Seconds per part, and FLOPs if they are counted.

    Parts nest, and a part is not charged for the parts within it, so the sum over parts is the total time. Time outside
    any part is `rest`.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.flops: defaultdict[str, int] = defaultdict(int)
        self.stack: list[str] = []
        self.counter: FlopCounterMode | None = None
        self.cuda = False  # synchronise with the GPU at each change of part
        self.restore = ExitStack()
        self.mark = time.perf_counter()

    def clear(self) -> None:
        """Discard the seconds so far and restart the time."""
        self._charge()
        self.seconds.clear()

    def read(self) -> dict[str, float]:
        """Return the seconds per part up to now."""
        self._charge()
        return dict(self.seconds)

    def _charge(self) -> None:
        """Charge the time and FLOPs since the last charge to the innermost part."""
        if self.cuda:
            torch.cuda.synchronize()
        part, now = self.stack[-1] if self.stack else REST, time.perf_counter()
        self.seconds[part] += now - self.mark
        self.mark = now
        if self.counter is not None:
            counted = self.counter.get_total_flops()
            self.flops[part] += counted - self.counted
            self.counted = counted

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge the time within the context to `name`."""
        self._charge()
        self.stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self.stack.pop()

    def go_on_as(self, name: str) -> None:
        """Charge the remaining time of the innermost part to `name`."""
        self._charge()
        self.stack[-1] = name

    def count_flops(self, on: bool) -> None:
        """Start counting the FLOPs of products, convolutions and attention, which is slow, or stop it."""
        if on:
            self.flops.clear()
            self.counted, self.counter = 0, FlopCounterMode(display=False, custom_mapping=_cpu_kernels())
            self.counter.__enter__()
        else:
            self._charge()
            self.counter.__exit__(None, None, None)
            self.counter = None

    def wrap(self, owner: Any, method: str, part: str) -> None:
        """Time an object's method as `part` until `release`."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(part):
                return inner(*args, **kwargs)

        self.replace(owner, method, timed)

    def replace(self, owner: Any, method: str, by: Callable[..., Any]) -> None:
        """Replace a method of one object until `release`."""
        own, before = method in vars(owner), vars(owner).get(method)
        setattr(owner, method, by)
        self.restore.callback(functools.partial(setattr, owner, method, before) if own else
                              functools.partial(delattr, owner, method))  # fmt: skip

    def hooked(self, losses: dict[str, Tensor], part: str) -> dict[str, Tensor]:
        """Return the same losses; the backward pass is charged to `part` once it reaches one of them.

        Autograd first runs what was computed last, so the losses computed after these are complete by then.
        """

        def reached(_grad: Tensor) -> None:
            if self.stack and self.stack[-1] != part:
                self.go_on_as(part)

        for loss in losses.values():
            if loss.requires_grad:
                loss.register_hook(reached)
        return losses

    def release(self) -> None:
        """Restore all objects."""
        if self.counter is not None:
            self.count_flops(False)
        self.restore.close()


class TimedLoader:
    """Sized iterable that times the creation of its items as `part`."""

    def __init__(self, loader: Iterable[Any], watch: Stopwatch, part: str):
        self.loader, self.watch, self.part = loader, watch, part

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        items, end = iter(self.loader), object()
        while True:
            with self.watch.part(self.part):
                item = next(items, end)
            if item is end:
                return
            yield item


def _cpu_kernels() -> dict[Any, Callable[..., int]]:
    """Return the FLOPs of kernels that torch's own table lacks, as functions of their arguments' shapes."""

    def linear(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
        return 2 * x.numel() * weight[0]

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def attention_backward(grad: torch.Size, q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v)

    aten = torch.ops.aten
    known: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        known[torch.ops.mkldnn._linear_pointwise] = linear
    return known
