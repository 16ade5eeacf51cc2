"""An environment whose constructor takes a lock, in a module that a worker imports quickly."""

from __future__ import annotations

import threading

import gymnasium as gym

LOCK = threading.Lock()


def locked_cartpole() -> gym.Env:
    """A CartPole that is made while holding `LOCK`."""
    with LOCK:
        return gym.make("CartPole-v1")
