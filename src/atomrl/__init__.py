"""Reinforcement-learning post-training for atomistic diffusion models."""
