"""Imagined rollouts, value iteration and whole episodes of an agent."""
