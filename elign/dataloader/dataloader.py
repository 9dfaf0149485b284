"""Published name of `atomrl.core.prompts.PromptPlan`."""

from atomrl.core.prompts import PromptPlan as EDMDataLoader

__all__ = ["EDMDataLoader"]
