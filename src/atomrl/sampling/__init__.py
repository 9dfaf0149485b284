"""Samples into a file: as they come, or chosen by a reward, a check or a composition."""
