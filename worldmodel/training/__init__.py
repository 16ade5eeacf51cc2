"""Construction of agents from a configuration, and their training under Lightning."""
