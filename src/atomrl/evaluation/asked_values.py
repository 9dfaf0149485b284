"""How near samples of a conditional model come to what they were asked for, by a regressor that judges them."""

from __future__ import annotations

from dataclasses import dataclass

from atomrl.checkpoints.regressor import LoadedRegressor
from atomrl.core.conditioning import PropertyConditioning, described
from atomrl.core.records import Prompts, Structures
from atomrl.evaluation.definition import Definition
from atomrl.evaluation.molecules import MoleculeScorecard
from atomrl.measures.bootstrap import RESAMPLES, mean
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class AskedJudge:
    """Predicts the property that a model was asked for, and compares.

    Attributes:
        regressor: of the property, trained on other molecules than the model.
        origin: of it, for the record.
        conditioning: of the model.

    Raises:
        UserError: the model is not conditioned on that property.
    """

    regressor: LoadedRegressor
    origin: str
    conditioning: PropertyConditioning | None

    def __post_init__(self) -> None:
        names = () if self.conditioning is None else self.conditioning.names
        if self.name not in names:
            raise UserError(
                f"{self.origin} predicts {self.name}, and the model is {described(self.conditioning)}: leave it out, "
                "or give one of the model's properties"
            )

    @property
    def name(self) -> str:
        """Of the property."""
        return self.regressor.network.target

    def add_to(
        self,
        metrics: MoleculeScorecard,
        structures: Structures,
        prompts: Prompts | None,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> MoleculeScorecard:
        """The verdict on B molecules with two more rows: the error, and what a model that uses the size alone has.

        Args:
            metrics: so far.
            structures: the molecules.
            prompts: theirs; None: nobody asked for them, and both rows are empty.
            seed: of the bootstrap.
            resamples: of the bootstrap.
        """
        name, held_out = self.name, self.regressor.held_out
        error, by_size = asked_metric(name), f"{asked_metric(name)}_by_size"
        unit = self.regressor.unit
        rows = {
            error: Definition(f"{name}, distance of predicted from asked, mean", unit, "scored", "lower"),
            by_size: Definition(f"{name}, distance of its size's mean from asked, mean", unit, "asked", "neither"),
        }
        said = (
            f"{self.origin}; mean absolute error {held_out['mae']:.3g} {unit} on molecules that it did not learn from"
        )
        conditions = {f"{name}_predicted_by": said}
        if prompts is None or prompts.context is None or self.conditioning is None:
            return metrics.with_rows(rows, {}, conditions)
        asked = self.conditioning.values(prompts.context)[name]
        predicted = self.regressor.network.predict(structures)[name].cpu().double()
        expected = self.conditioning.known[name].mean_of(structures.sizes.cpu())
        values = {error: (predicted - asked).abs(), by_size: (expected - asked).abs()}
        summary = {row: mean(found.numpy(), seed, resamples) for row, found in values.items()}
        return metrics.with_rows(rows, summary, conditions)


def asked_metric(name: str) -> str:
    """What the error of a property is called among metrics: `<name>_error`."""
    return f"{name}_error"
