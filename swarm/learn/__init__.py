"""What happens between rounds of episodes: experience -> learning step -> delta -> acceptance test -> sharing."""
