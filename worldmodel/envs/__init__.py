"""Vectorised environments."""

from worldmodel.envs.engines.fault_tolerant_vector import TooManyFaults
from worldmodel.envs.make import make_env
from worldmodel.envs.vector import Step, VectorEnv

__all__ = ["Step", "TooManyFaults", "VectorEnv", "make_env"]
