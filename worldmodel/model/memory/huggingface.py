"""Causal backbones of the `transformers` library, randomly initialised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.model.memory.base import Memory, Rows, check_capacity, check_positive
from worldmodel.model.memory.mask import additive, positions, visible


@dataclass
class Past(Rows):
    """The library's cache, with the episode and validity of each row."""

    cache: Any = None


class HuggingFace(Memory[Past]):
    """Backbone with `inputs_embeds`, a 4-D mask, and positions counted from the start of each episode.

    model_type: the library's name of the architecture (gpt2, llama, qwen3, ...).
    options: further fields of its configuration, under the architecture's own names.

    Raises ValueError for unknown architectures and for `heads` that do not divide `dim`.
    """

    def __init__(
        self,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        model_type: str = "gpt2",
        max_length: int = 1024,
        options: dict[str, Any] | None = None,
    ):
        super().__init__()
        from transformers import AutoConfig, AutoModel  # takes seconds to import, and most runs do not use it

        check_positive(dim=dim, depth=depth, heads=heads, max_length=max_length)
        if dim % heads:
            raise ValueError(f"memory.heads={heads}: allowed are divisors of memory.dim={dim}")
        self.dim, self.max_length = dim, max_length
        fields = {
            "vocab_size": 1,  # the inputs are embeddings
            "hidden_size": dim,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "max_position_embeddings": max_length,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        try:
            config = AutoConfig.for_model(model_type, **fields, **dict(options or {}))
        except ValueError:
            raise ValueError(f"memory.model_type={model_type}: allowed are causal models of `transformers`") from None
        self.backbone: nn.Module = AutoModel.from_config(config)
        self.backbone.get_input_embeddings().requires_grad_(False)  # unused: DDP would wait for its gradient

    def layers(self, x: Tensor, episode: Tensor, valid: Tensor) -> list[Tensor]:
        """See `Memory.layers`."""
        return list(self._encode(x, visible(episode, valid), output_hidden_states=True).hidden_states[1:])

    def forward(self, x: Tensor, episode: Tensor, valid: Tensor) -> Tensor:
        """See `Memory.forward`."""
        return self._encode(x, visible(episode, valid)).last_hidden_state

    @torch.no_grad()
    def prefill(self, x: Tensor, episode: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, Past]:
        """See `Memory.prefill`."""
        from transformers import DynamicCache

        check_capacity(x.shape[1], capacity)
        state = Past(capacity, cache=DynamicCache())
        state.fill(episode, valid)
        if not x.shape[1]:
            return x, state
        out = self._encode(x, visible(episode, valid), past_key_values=state.cache, use_cache=True)
        return out.last_hidden_state, state

    @torch.no_grad()
    def step(self, x: Tensor, episode: Tensor, valid: Tensor, state: Past) -> Tensor:
        """See `Memory.step`."""
        rows = state.append(episode, valid) + 1
        see = visible(state.episode[:, :rows], state.valid[:, :rows], queries=1)
        return self._encode(x[:, None], see, past_key_values=state.cache, use_cache=True).last_hidden_state[:, 0]

    def _encode(self, x: Tensor, see: Tensor, **options: Any) -> Any:
        if see.shape[2] > self.max_length:
            raise ValueError(f"memory.max_length={self.max_length}: allowed are at least the {see.shape[2]} rows seen")
        mask = additive(see).to(x.dtype)
        options.setdefault("use_cache", False)
        return self.backbone(inputs_embeds=x, attention_mask=mask, position_ids=positions(see), **options)
