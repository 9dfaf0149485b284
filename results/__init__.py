"""Documented name of `studies`."""
