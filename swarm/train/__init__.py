"""Training before play: recipes, loops, lessons."""
