"""The agent, its updates, and its learning in imagination."""
