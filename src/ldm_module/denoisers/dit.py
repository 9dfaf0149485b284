"""Published name of `atomrl.networks.dit`."""

from atomrl.networks.dit import DiT

__all__ = ["DiT"]
