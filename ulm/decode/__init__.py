"""Writing text: engine, steppers, prompts, constraints."""
