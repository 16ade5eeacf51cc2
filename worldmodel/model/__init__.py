"""The world model."""
