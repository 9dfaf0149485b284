"""Rewards toward what the prompts of a conditional model ask for."""

from __future__ import annotations

from atomrl.core.conditioning import described
from atomrl.core.protocols import Model
from atomrl.rewards.components import ASKED, PredictorReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.util.errors import UserError


def require_asked(own: ReinforceReward, model: Model) -> None:
    """Raise UserError for a reward toward what prompts ask for, of a model whose prompts do not.

    Raises:
        UserError: as said.
    """
    asked = model.conditioning
    names = () if asked is None else asked.names
    quantities = () if asked is None else asked.quantities
    for component in own.components:
        if not isinstance(component, PredictorReward) or component.target_value != ASKED:
            continue
        if component.target_name in names and component.target_name not in quantities:
            raise UserError(
                f"reward.components: PredictorReward pays for the {component.target_name} that a sample was asked for, "
                f"and {model.origin} is asked for it by a class or a formula, to which a prediction has no distance: "
                "give target_value a number, or take a backbone with this condition of the kind value"
            )
        if component.target_name not in names:
            raise UserError(
                f"reward.components: PredictorReward pays for the {component.target_name} that a sample was asked for, "
                f"and {model.origin} is {described(model.conditioning)}: take a backbone that is conditioned on it, or "
                "give target_value a number"
            )
