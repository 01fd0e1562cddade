"""Looking at a run: dashboard, replay, report. All of it reads the journal only."""
