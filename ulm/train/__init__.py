"""Losses, optimizer, states and evaluation of training."""
