"""Worlds of our own, registered with gymnasium as `worldmodel/<name>-v0`."""

import gymnasium as gym

from worldmodel.worlds.processes import PROCESSES

for _name in PROCESSES:
    gym.register(
        f"worldmodel/{_name}-v0",
        entry_point="worldmodel.worlds.known:KnownWorld",
        vector_entry_point="worldmodel.worlds.known:KnownWorlds",
        max_episode_steps=64,
        kwargs={"process": _name},
    )
