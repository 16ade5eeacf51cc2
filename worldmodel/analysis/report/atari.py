"""Atari by the field's conventions: whole games, and scores in units of a human's."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

SCORES = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "DemonAttack": (152.1, 1971.0),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Hero": (1027.0, 30826.4),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MsPacman": (307.3, 6951.6),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "RoadRunner": (11.5, 7845.0),
    "Seaquest": (68.4, 42054.7),
    "UpNDown": (533.4, 11693.2),
}
"""Scores of a random and of a human player in the 26 games of Atari-100k (Wang et al. 2016, arXiv 1511.06581)."""


def human_normalised(env_id: str, score: float) -> float | None:
    """Return a score between those of a random player, 0, and of a human, 1; None for other worlds.

    The id is that of envpool or Gymnasium, for example Pong-v5 or ALE/Pong-v5.
    """
    game = env_id.removeprefix("ALE/").split("-")[0].removesuffix("NoFrameskip")
    if game not in SCORES:
        return None
    low, high = SCORES[game]
    return (score - low) / (high - low)


def whole_games(env: DictConfig) -> dict[str, Any]:
    """Return changes of an environment for evaluation: games end with the last life, and rewards are raw."""
    kwargs: dict[str, Any] = OmegaConf.to_container(env.get("kwargs") or OmegaConf.create({}))
    trained = {key for key in ("episodic_life", "reward_clip") if kwargs.get(key)}
    return {"kwargs": kwargs | dict.fromkeys(trained, False)} if trained else {}
