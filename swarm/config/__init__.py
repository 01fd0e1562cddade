"""What an experiment file may say, and how a mistake in it is told."""
