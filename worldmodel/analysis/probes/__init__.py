"""What a model learnt and what it compresses: tensors in, numbers and figures out.

Each file holds one instrument and has been checked where the answer is known. `activations` reads an agent's rollouts;
nothing else here knows of agents, save `observation` and `world_coder`.
"""
