"""Real steps: acting, collection and replay."""
