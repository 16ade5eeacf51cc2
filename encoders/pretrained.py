"""Vision backbones of the `transformers` library as encoders of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import gymnasium as gym
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.image import ImageEncoder


class Pretrained(ImageEncoder):
    """Patch features of a vision backbone, averaged over positions (or kept as a map) and projected to `dim`.

    backbone: a model's name or path (`AutoModel.from_pretrained`, which may download it), or a mapping with a
        `model_type` and its configuration, for random weights.
    frozen: the backbone has no gradients and stays in evaluation mode. The projection always learns.
        The statistics of batch normalisation are those of the pretrained model in any case: with those of a batch, a
        row's latent would depend on other rows.
    size: side to which images are resized. null: the backbone's image size, or the image's own size if the backbone
        accepts any.

    Images are standardised with the statistics of the model's preprocessor (mean 0.5 and std 0.5 without one). A single
    channel is repeated.

    Raises ValueError for images with other than 1 or 3 channels.
    """

    name = "pretrained"

    def __init__(
        self,
        space: gym.Space,
        dim: int = 128,
        backbone: str | dict[str, Any] = "facebook/dinov2-small",
        frozen: bool = True,
        size: int | None = None,
        spatial: bool = False,
    ):
        super().__init__(space)
        if self.image[0] not in (1, 3):
            raise ValueError(f"encoder=pretrained with {self.image[0]} image channels: allowed are 1 and 3")
        self.body = Backbone(backbone, frozen, size)
        self.add_head(dim, spatial, pool=True)


class Backbone(nn.Module):
    """Vision model of `transformers`: images (N, 1 or 3, H, W) in [0, 1] -> feature maps (N, C, H', W')."""

    def __init__(self, backbone: str | Mapping[str, Any], frozen: bool, size: int | None):
        super().__init__()
        from transformers import AutoConfig, AutoModel  # slow to import, and rarely needed

        known: dict[str, Any] = {}
        if isinstance(backbone, str):
            model, known = AutoModel.from_pretrained(backbone), _preprocessing(backbone)
        else:
            options = dict(backbone)
            model = AutoModel.from_config(AutoConfig.for_model(options.pop("model_type"), **options))
        self.model = getattr(model, "vision_model", model)  # the vision half of an image-text model
        config = self.model.config
        self.size = size or known.get("size") or getattr(config, "image_size", None)
        self.patch = getattr(config, "patch_size", None)
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(known.get("mean", [0.5] * 3)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(known.get("std", [0.5] * 3)).view(3, 1, 1), persistent=False)
        self.model.requires_grad_(not frozen)
        self.eval()
        if not frozen:
            self._freeze_unused()
        self.train()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        for layer in self.model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return self

    def _freeze_unused(self) -> None:
        """Freeze the weights that the features do not depend on (poolers, mask tokens).

        With gradients enabled, they would stall distributed training.
        """
        side = self.size or 64
        weights = list(self.model.parameters())
        out = self(torch.zeros(1, 3, side, side)).sum()
        for weight, grad in zip(weights, torch.autograd.grad(out, weights, allow_unused=True), strict=True):
            weight.requires_grad_(grad is not None)

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):  # the library's models do not support empty batches
            return self(x.new_zeros(1, *x.shape[1:]))[:0]
        if self.size and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        x = (x - self.mean) / self.std  # repeats a single channel
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.model(pixel_values=x).last_hidden_state
        return features if features.ndim == 4 else self._map(features)

    def _map(self, tokens: Tensor) -> Tensor:
        """Reshape tokens (N, prefix + H' * W', C) to (N, C, H', W'); the prefix is class and register tokens."""
        count = tokens.shape[1]
        side = self.size // self.patch if self.size and isinstance(self.patch, int) else 0
        side = side if 0 < side**2 <= count else isqrt(count)
        return rearrange(tokens[:, -(side**2) :], "n (h w) c -> n c h w", h=side)


def _preprocessing(name: str) -> dict[str, Any]:
    """Return mean and std per channel and the image size of a model's preprocessor, if it has them."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        options, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return {}
    size = options.get("crop_size") or options.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    found = {"mean": options.get("image_mean"), "std": options.get("image_std"), "size": size}
    return {key: value for key, value in found.items() if value is not None}
