"""The project's own worlds, registered with gymnasium as `worldmodel/<name>-v0`."""

from functools import partial

import gymnasium as gym

from worldmodel.envs.worlds.base import World
from worldmodel.envs.worlds.chain import Chains
from worldmodel.envs.worlds.known_answer import KnownWorlds
from worldmodel.envs.worlds.pendulum import Pendulums
from worldmodel.envs.worlds.processes import PROCESSES

_WORLDS = {name: partial(KnownWorlds, process=name) for name in PROCESSES}
_WORLDS |= {"Chain": Chains, "DoublePendulum": Pendulums}
_LIMITS = {"Chain": 59, "DoublePendulum": 200}

for _name, _worlds in _WORLDS.items():
    gym.register(
        f"worldmodel/{_name}-v0",
        entry_point=partial(World, _worlds),
        vector_entry_point=_worlds,
        max_episode_steps=_LIMITS.get(_name, 64),
    )

gym.register("worldmodel/Crafter-v0", entry_point="worldmodel.envs.worlds.crafter:Crafter", max_episode_steps=10_000)
gym.register("worldmodel/MemoryFacingAnywhere-v0", entry_point="worldmodel.envs.worlds.facing:MemoryFacingAnywhere")
