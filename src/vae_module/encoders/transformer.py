"""Published name of the encoder in `atomrl.networks.crystal_vae`."""

from atomrl.networks.crystal_vae import Encoder as TransformerEncoder

__all__ = ["TransformerEncoder"]
