"""Environments, N at a time."""

from worldmodel.envs.copies import TooManyFaults
from worldmodel.envs.make import make_env
from worldmodel.envs.vector import Step, VectorEnv

__all__ = ["Step", "TooManyFaults", "VectorEnv", "make_env"]
