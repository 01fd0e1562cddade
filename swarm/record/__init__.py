"""The run folder: journal, telemetry and outcomes, written and read."""
