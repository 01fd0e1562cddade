"""Who acts, and what it keeps: hosts, models, memories."""
