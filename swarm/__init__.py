"""The swarm simulator: configuration, journal, runtime, dashboard, reports and the command line."""
