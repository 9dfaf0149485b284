"""The configuration of a run on crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from atomrl.config.naming import is_named
from atomrl.config.objective_keys import FORWARD, LIKELIHOOD
from atomrl.config.outputs import EvaluationSection
from atomrl.config.sections import TARGET, Config, ModelSection, RewardSection, named_code
from atomrl.networks.lora_options import LoraOptions
from atomrl.util.options import Count, CountOrNone, Finite, Fraction, Options, Seconds, contradiction
from atomrl.util.registry import registered_names

UNSAID: Mapping[str, float] = {"model.guidance_scale": 2.0}
"""{key: value that in a file says no more than null}: published configurations have it for every backbone, and so have
runs of earlier versions."""


def without_unsaid(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A tree without the values of `UNSAID`, unless one of the overrides gives their key: what is typed is meant."""
    found = dict(tree)
    for key, value in UNSAID.items():
        section, _, name = key.partition(".")
        inside = found.get(section)
        if isinstance(inside, Mapping) and inside.get(name) == value and not is_named(key, overrides):
            found[section] = {other: entry for other, entry in inside.items() if other != name}
    return found


def _crystal_force_field(key: str, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Raise UserError for a name that no force field of crystals has."""
    if isinstance(value, dict):
        return named_code(key, value)
    names = registered_names("atomrl.force_fields", "CRYSTAL_SPEC")
    if value is not None and value not in names:
        raise contradiction(f"{{at}}{key}={value}: must be one of {', '.join(names)}, or a mapping with {TARGET}")
    return value


class CrystalModel(ModelSection):
    """The backbone and how it samples."""

    backbone: str = "crystal_small"
    time_step: Count = 50
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """How the walk steps: `ddpm`, whose std the network learns, or `ddim`, whose std `eta` fixes."""
    eta: Fraction = 1.0
    """For `ddim`: 1 is stochastic; at 0 the steps have no noise, and only `nft`, `awm` and `rejection` can train, which
    need no log-probability of a step."""
    guidance_scale: Finite | None = None
    """For conditional models: factor of classifier-free guidance; 1: no guidance, null: 2. An unconditional model takes
    none; a 2 in a file says no more than null, since published configurations have it for every model."""
    lora: LoraOptions = LoraOptions()
    """Adapters that are trained in place of the denoiser's weights."""


class CrystalReward(RewardSection):
    """What is rewarded: components, and what they compare with."""

    type: Literal["reinforce", "dummy"] = "reinforce"
    """`reinforce`: the reward is that of `components`; `dummy`: for smoke tests, its numbers mean nothing."""
    components: list[Any] = Field(default_factory=list)
    """What is rewarded: each `{_target_: name, key: value, ...}`, where the name is a class of
    `atomrl.rewards.components`, its published name (`src.rl_module.components...`), or your own class or function
    f(structures) -> array: a dotted path, or `path/to/file.py:name`."""
    combine: Literal["sum", "product"] = "sum"
    """What is trained on: the `sum` of the weighted components, or the `product` of their normalised values, each to
    the power of its weight."""
    pure_elements: bool = True
    """Whether crystals of one element are rewarded; false: they are worth what a sample with an unsound cell is
    worth."""
    reference_dataset: str = "prototypes"
    """What novelty and diversity compare with: `prototypes`, the shipped set, or a folder: one made by `atomrl data
    reference` or `atomrl data prototypes`, or one with train.csv."""
    force_field: Annotated[
        str | dict[str, Any] | None, AfterValidator(partial(_crystal_force_field, "force_field"))
    ] = None
    """What computes the reward's energies: `chgnet`, `mace`, `sevennet` or `uma`; or `{_target_: name, key: value}`,
    such a name with options, a calculator of ASE or your own force field; null: CHGNet. The table of an evaluation
    stays CHGNet's."""
    hull: str | None = None
    """Convex hull that energies are compared with: a file of `atomrl data reference`, with energies of the same force
    field; `prototypes`: the hull of the shipped set; null: the one in the folder of `reference_dataset`, `hull.json`
    for CHGNet, else `hull-<name>.json`."""
    timeout: Seconds = 10.0
    """Seconds that the structure matcher may take to compare two crystals, or one with a few known ones; a comparison
    that takes longer has failed."""
    batch_size: Count = 16
    """Crystals that the force field evaluates at once."""

    relax_seconds: Seconds = 600.0
    """Time limit, in seconds, for relaxing an iteration's samples, where `EnergyReward` has `relax_steps`; a sample
    that still moves then has no energy (`slow`)."""

    @property
    def code(self) -> list[Any]:
        """Components and force field."""
        return [*self.components, *([self.force_field] if isinstance(self.force_field, dict) else [])]


class WantedProperty(Options):
    """A property by which a predictor judges samples."""

    predictor: str
    """Folder that `atomrl pretrain predictor` wrote; one that took no part in any training is the better judge."""
    name: str
    """Name of the property."""
    at_most: Finite | None = None
    """Largest value that is wanted; give this or `at_least`."""
    at_least: Finite | None = None
    """Smallest value that is wanted; give this or `at_most`."""

    @model_validator(mode="after")
    def _check_bound(self) -> Self:
        """Raise UserError for none or both."""
        if (self.at_most is None) == (self.at_least is None):
            raise contradiction(f"{{at}}{self.name}: give at_most or at_least, one of them")
        return self


class CrystalEvaluationSection(EvaluationSection):
    """The before/after table that a run ends with."""

    relaxed: CountOrNone = 0
    """Samples on each side of the table that are judged once more after a relaxation; 0: none."""
    second_judge: Annotated[
        str | dict[str, Any] | None, AfterValidator(partial(_crystal_force_field, "second_judge"))
    ] = None
    """Another force field, which no training saw, for a table of its own: named as in reward.force_field, with its hull
    in the folder of reward.reference_dataset; null: none. The shipped set has a hull of `sevennet` (needs `pip install
    'atomrl[sevennet]'`)."""
    mixed_valence: bool = False
    """Whether the table has a further row, and each sample a column: composition validity if atoms of one element may
    have different oxidation states, as in Fe3O4 and KO2."""
    wanted: list[WantedProperty] = Field(default_factory=list)
    """Properties that samples should have, as predictors say: two further rows each, the share of samples that are
    unique and novel and have a wanted value, and the median; e.g. `[{predictor: outputs/my_predictor, name: band_gap,
    at_least: 1.0}]`."""


class CrystalConfig(Config):
    """A run on crystals; all keys of `Config`, and those of its sections here."""

    domain: Literal["crystals"] = "crystals"
    best_checkpoint_metric: str = "raw_reward"
    model: CrystalModel = CrystalModel()
    reward: CrystalReward = CrystalReward()
    evaluation: CrystalEvaluationSection = CrystalEvaluationSection()

    @model_validator(mode="after")
    def _check_spread(self) -> Self:
        """Raise UserError for what needs steps with a spread, if DDIM's have none."""
        model, train = self.model, self.train
        if model.sampler != "ddim" or model.eta > 0:
            return self
        if train.objective in LIKELIHOOD:
            raise contradiction(
                f"model.eta=0: DDIM's steps have no spread, hence no log-probability that "
                f"train.objective={train.objective} could learn from; raise model.eta (1 is usual), or set "
                f"train.objective to {', '.join(FORWARD[:-1])} or {FORWARD[-1]}, which need none"
            )
        if train.max_behaviour_kl is not None:
            raise contradiction(
                f"train.max_behaviour_kl={train.max_behaviour_kl} is measured by the spread of DDIM's steps, and "
                "model.eta=0 leaves none: raise model.eta, or set train.max_behaviour_kl=null"
            )
        if model.share_initial_noise and self.dataloader.each_prompt_sample > 1:
            raise contradiction(
                "model.share_initial_noise=true with model.eta=0 makes all samples of a group the same, and nothing "
                "could be compared: raise model.eta, or set model.share_initial_noise=false"
            )
        return self

    @property
    def code(self) -> list[Any]:
        """The second judge too."""
        judge = self.evaluation.second_judge
        return [*super().code, *([judge] if isinstance(judge, dict) else [])]
