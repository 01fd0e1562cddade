"""Ray lives here (and in `swarm.training`): host actors and the pool that keeps them alive."""
