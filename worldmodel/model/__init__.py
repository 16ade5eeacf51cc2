"""The world model: action embedding, memories, heads and latent targets."""
