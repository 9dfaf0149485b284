"""Published name of the property predictor; everything is in `atomrl`."""

from atomrl.checkpoints.published_modules import PredictorModule

__all__ = ["PredictorModule"]
