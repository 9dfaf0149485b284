"""Published name of the decoder in `atomrl.networks.crystal_vae`."""

from atomrl.networks.crystal_vae import Decoder as TransformerDecoder

__all__ = ["TransformerDecoder"]
