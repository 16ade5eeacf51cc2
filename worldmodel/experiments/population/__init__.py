"""Population-based training: members train side by side, and the worst go on from the best with other settings."""
