"""Published name of the crystal VAE; everything is in `atomrl`."""

from atomrl.checkpoints.published_modules import VAEModule

__all__ = ["VAEModule"]
