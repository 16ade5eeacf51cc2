"""Building an agent and training it under Lightning."""
