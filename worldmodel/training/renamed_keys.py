"""Keys and options of earlier versions, each with its new name."""

from __future__ import annotations

from collections.abc import Iterable

from worldmodel.errors import ConfigError

KEYS = {
    "policy.dream.starts": "policy.imagination.num_start_states",
    "policy.dream.passes": "policy.imagination.updates_per_batch",
    "policy.dream.anew": "policy.imagination.reset_actor",
    "policy.dream": "policy.imagination",
    "policy.ppo.sharpness": "policy.objective.target_temperature",
    "policy.ppo": "policy.objective",
    "data.horizon": "data.rollout_length",
    "data.batch": "data.minibatches",
    "data.episode_window": "data.stats_window",
    "model.observation": "heads=observation",
    "model.recall": "heads=recall",
    "spot": "preemption",
}
CHOICES = {
    "policy=dream": "policy=imagined",
    "policy=plan": "policy=planned",
    "curiosity=random": "policy=random curiosity=none",
    **{
        f"curiosity={name}_published": f"experiment={name}_published"
        for name in ("rnd", "random_features", "deir", "etd")
    },
}


def new_name(override: str) -> str | None:
    """Return the new form of an override `key=value` with an old key or option, None for any other override."""
    key, _, value = override.lstrip("+~").partition("=")
    if (choice := f"{key}={value}") in CHOICES:
        return CHOICES[choice]
    for old, new in KEYS.items():
        if key == old or key.startswith(f"{old}."):
            if old == "data.batch":
                return f"{new} (minibatches in a pass, env.num_envs / {value or 'batch'})"
            return new if "=" in new else f"{new}{key[len(old) :]}={value}"
    return None


def refuse_renamed(overrides: Iterable[str]) -> None:
    """Raise ConfigError for the first override with an old key or option; the message has the new one."""
    for override in overrides:
        if new := new_name(override):
            raise ConfigError(f"{override}: renamed, use {new}")
