"""A person as the world: talks with a model that learns between the exchanges from what the person says of its answers."""
