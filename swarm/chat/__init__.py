"""A person as the world: a model learns between exchanges from what a person says of its answers."""
