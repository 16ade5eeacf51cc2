"""Policies and their objectives."""

from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.cloning import Cloning, ReturnConditioned, ReturnConditioning
from worldmodel.policy.planned import QDistillation
from worldmodel.policy.ppo import PPO, Objective
from worldmodel.policy.random_policy import RandomPolicy
from worldmodel.policy.return_scale import ReturnScale

__all__ = [
    "PPO",
    "ActorCritic",
    "Cloning",
    "Objective",
    "QDistillation",
    "RandomPolicy",
    "ReturnConditioned",
    "ReturnConditioning",
    "ReturnScale",
]
