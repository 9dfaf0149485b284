"""Published name of the latent diffusion model; everything is in `atomrl`."""

from atomrl.checkpoints.published_modules import LDMModule

__all__ = ["LDMModule"]
