"""Probes of representations and of compression: tensors in, numbers and figures out.

Each file holds one instrument, tested where the answer is known. Only `activations`, `observation` and `world_coder`
depend on agents.
"""
