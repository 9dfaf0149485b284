"""The configuration of a run on molecules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from atomrl.config.objective_keys import READ_BY
from atomrl.config.outputs import EvaluationSection, LogSection
from atomrl.config.sections import (
    TARGET,
    Config,
    DataloaderSection,
    ModelSection,
    RewardSection,
    TrainSection,
    named_code,
)
from atomrl.rewards.filter_options import FilterOptions
from atomrl.rewards.force_energy_config import OMOL, ForceEnergyConfig
from atomrl.util.errors import UserError
from atomrl.util.option_words import Unit
from atomrl.util.options import Count, CountOrNone, Seconds, Weight, contradiction
from atomrl.util.registry import registered_names

FORCE_FIELDS = registered_names("atomrl.force_fields")
"""Force fields of molecules that have a name."""

BUILT_IN = (*FORCE_FIELDS, "ase", "dummy")
"""Rewards of the package, as `reward.type` and a component's `_target_` name them."""

SUITED = {"xtb": ("GFN2-xTB", "xtb"), OMOL: ("UMA", "uma")}
"""Energies of atoms by name: of which method, and which force field that is."""

FIRST_JUDGE = "xtb"
"""The force field of every evaluation."""


def _target(entry: Any) -> Any:
    """What a component names."""
    return entry.get(TARGET) if isinstance(entry, dict) else None


def _type(value: str) -> str:
    """Raise UserError for a name that no reward of molecules has."""
    if value not in BUILT_IN:
        raise contradiction(f"{{at}}type={value}: must be one of {', '.join(BUILT_IN)}")
    return value


def _force_field(value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Raise UserError for a name that no force field of molecules has."""
    if isinstance(value, dict):
        return named_code("force_field", value)
    if value is not None and value not in FORCE_FIELDS:
        names = ", ".join(FORCE_FIELDS)
        raise contradiction(f"{{at}}force_field={value}: must be one of {names}, or a mapping with {TARGET}")
    return value


def _second_judge(value: str | None) -> str | None:
    """Raise UserError for a name that no other force field of molecules has."""
    names = [name for name in FORCE_FIELDS if name != FIRST_JUDGE]
    if value is not None and value not in names:
        raise contradiction(f"{{at}}second_judge={value}: must be {' or '.join(names)}, or null")
    return value


class MoleculeReward(ForceEnergyConfig, RewardSection):
    """What is rewarded: the options of `ForceEnergyConfig`, and where scores come from."""

    type: Annotated[str, AfterValidator(_type)] = "xtb"
    """What computes forces and energies: `xtb` (GFN2-xTB), `ani`, `mace`, `sevennet`, `uma`, or `ase`, the calculator
    in `force_field`; or `dummy`, for smoke tests, whose numbers mean nothing."""
    components: list[Any] = Field(default_factory=list)
    """Several rewards at once, in place of `type`: each `{_target_: name, key: value, ...}`, where the name is a value
    of `type`, or your own class or function f(structures) -> array: a dotted path, or `path/to/file.py:name`. One of
    your own is a channel with its `weight` in the objective. A class with `score` and `weights` is a whole reward, and
    stands alone. []: `type` is the reward."""
    force_field: Annotated[str | dict[str, Any] | None, AfterValidator(_force_field)] = None
    """What computes forces and energies: a name as in `type`; or `{_target_: name, key: value}`, such a name with
    options, a calculator of ASE or your own force field; null: that of `type`."""
    timeout: Seconds = 10.0
    """Seconds that one molecule may take to be scored; one that takes longer has failed."""
    max_iterations: Count = 100
    """Most iterations of xTB's self-consistent field (SCF)."""

    @property
    def built_in(self) -> str | None:
        """The one of the built-in rewards that is used: `type`, or the one among the components, or none."""
        if not self.components:
            return self.type
        return next((name for name in map(_target, self.components) if name in BUILT_IN), None)

    @property
    def has_total(self) -> bool:
        """See `RewardSection`; components of the user's add up beside the dummy too."""
        return self.built_in != "dummy" or bool(self.own)

    @property
    def own(self) -> list[Any]:
        """The components that are none of the built-in rewards."""
        return [entry for entry in self.components if _target(entry) not in BUILT_IN]

    @property
    def code(self) -> list[Any]:
        """Components and force field."""
        return [*self.components, *([self.force_field] if isinstance(self.force_field, dict) else [])]

    @property
    def chosen_force_field(self) -> str | dict[str, Any] | None:
        """Who computes forces and energies; None: nobody."""
        if self.built_in in (None, "dummy"):
            return None
        return self.built_in if self.force_field is None else self.force_field

    @property
    def by_gfn2(self) -> bool:
        """Whether forces and energies are those of GFN2-xTB."""
        chosen = self.chosen_force_field
        return (chosen if isinstance(chosen, str) else _target(chosen)) == "xtb"

    @model_validator(mode="after")
    def _check_force_field(self) -> Self:
        """Raise UserError for a reward without its force field, and references of another one."""
        if self.built_in == "ase" and self.force_field is None:
            raise contradiction(
                "{at}type=ase needs {at}force_field, which names the calculator: {_target_: ase.calculators.emt.EMT}"
            )
        chosen = self.chosen_force_field
        name = chosen if isinstance(chosen, str) else _target(chosen)
        if self.built_in not in (None, "ase", "dummy", "xtb", name):
            raise contradiction(
                f"{{at}}type={self.built_in} and {{at}}force_field name two force fields: leave out one, or set "
                "{at}force_field=null"
            )
        self._check_references(name)
        energy_alone = self.shaping.only_energy_reshape or self.shaping.mode == "pbrs_return_to_go"
        if self.shaping.enabled and energy_alone and "energy" not in self.channels:
            raise contradiction(f"{{at}}shaping shapes the energy, and {self.why_absent('energy')}")
        if sum(_target(entry) in BUILT_IN for entry in self.components) > 1:
            raise contradiction(f"{{at}}components: at most one of {', '.join(BUILT_IN)}")
        return self

    def require_one_force_field(self, keys: Collection[str]) -> None:
        """Refuse a typed `type` that is not what computes: another force field does, or a component of the YAML.

        As the default it says nothing, nor beside components that were typed, which stand in its place.

        Args:
            keys: that were typed, of the whole configuration.

        Raises:
            UserError: it was.
        """
        if "reward.type" not in keys:
            return
        chosen = self.chosen_force_field
        name = chosen if isinstance(chosen, str) else _target(chosen)
        if self.type == self.built_in == "xtb" and not self.by_gfn2:
            raise UserError(
                f"reward.type=xtb and reward.force_field={name} name two force fields: set reward.force_field=null "
                "too, or leave reward.type out"
            )
        computing = (self.built_in, "ase" if self.force_field else None, name)
        if "reward.components" not in keys and self.type not in computing:
            keep = f", or reward.force_field={self.type} in its place" if name and self.type in FORCE_FIELDS else ""
            raise UserError(
                f"reward.type={self.type} changes nothing beside reward.components, of which "
                f"{self.built_in or 'none'} computes forces and energies: set reward.components=[] too{keep}, or leave "
                "reward.type out"
            )

    def _check_references(self, name: str | None) -> None:
        """Raise UserError for energies of atoms by another method than the force field of this name."""
        references = self.energy_atom_refs
        method, suited = SUITED.get(references, ("", None)) if isinstance(references, str) else ("", None)
        if name is not None and suited not in (None, name) and self.use_energy:
            raise contradiction(
                f"{{at}}energy_atom_refs={references} suits {method} alone, and another force field computes the "
                "energies: give own (what it says itself), {symbol: eV} or null"
            )

    @property
    def stability_home(self) -> str:
        """Name of the channel that the stability and valence terms are in."""
        return "stability" if self.stability_channel == "own" else "force"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that this reward gives."""
        if self.built_in is None:
            return ()
        dummy = self.built_in == "dummy"
        energy = ("energy",) if self.use_energy or dummy else ()
        stability = ("stability",) if self.stability_channel == "own" and not dummy else ()
        return ("force", *energy, *stability)

    def why_absent(self, channel: str) -> str:
        """Why this reward does not give a channel, and what to do."""
        if self.built_in is None:
            return f"reward.components has no {' or '.join(BUILT_IN)}, and no channel {channel}: add one"
        if self.built_in == "dummy":
            return f"reward.type=dummy has no channel {channel}: choose reward.type=xtb"
        if channel == "energy":
            return "reward.use_energy=false: there is no energy channel; set reward.use_energy=true"
        return "reward.stability_channel=force: stability is no channel of its own; set reward.stability_channel=own"


class MoleculeModel(ModelSection):
    """The backbone and how it samples."""

    @model_validator(mode="before")
    @classmethod
    def _check_adapters(cls, given: Any) -> Any:
        """Raise UserError for adapters: the network reads the weights of its layers, and not through the layers."""
        if isinstance(given, Mapping) and "lora" in given:
            raise contradiction(
                "{at}lora: only the denoiser of crystals can have adapters, a molecule model is trained as a whole; "
                "leave it out"
            )
        return given


class MoleculeDataloader(DataloaderSection):
    """Prompts, and what is known."""

    smiles_path: str | None = None
    """Known molecules, which are not novel: a text file with a SMILES at the beginning of each line, a pickle of a list
    of them, or the folder of a backbone that was trained on your own molecules; null: QM9's training molecules."""

    @property
    def known(self) -> Path | None:
        """The file of known molecules."""
        return None if self.smiles_path is None else Path(self.smiles_path)


class MoleculeTrain(TrainSection):
    """Objective and optimizer, with the reward's channels."""

    force_adv_weight: Weight = 1.0
    """Weight of the force channel in the objective."""
    energy_adv_weight: Weight = 0.1
    """Weight of the energy channel in the objective; the published 0.1 counts only where reward.use_energy makes that
    channel."""
    stability_adv_weight: Weight = 0.0
    """Weight of the stability channel in the objective, where reward.stability_channel=own makes that channel."""
    force_alignment_enabled: bool = False
    """For `fed_grpo` with shaped rewards and an adaptive schedule: whether a loss moves the mean of a step the way that
    the forces on z0_pred point, at the fine places of the schedule."""
    force_alignment_weight: Weight = 0.5
    """Weight of the loss that aligns steps with forces."""
    force_alignment_min_force: Annotated[Weight, Unit("eV/Å")] = 1e-4
    """Force in eV/Å; an atom with a smaller one is left out of the alignment with forces."""
    force_alignment_min_delta: Annotated[Weight, Unit("Å")] = 1e-4
    """Distance in Å; an atom whose mean has moved less is left out of the alignment with forces."""

    @property
    def force_alignment(self) -> dict[str, float] | None:
        """See `TrainSection.force_alignment`."""
        names = ("weight", "min_force", "min_delta")
        values = {name: float(getattr(self, f"force_alignment_{name}")) for name in names}
        read = not isinstance(self.objective, str) or self.objective in READ_BY["force_alignment_enabled"]
        return values if read and self.force_alignment_enabled and self.force_alignment_weight else None

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of each channel's advantages, whether the reward gives it or not."""
        return {
            "force": self.force_adv_weight,
            "energy": self.energy_adv_weight,
            "stability": self.stability_adv_weight,
        }


class MoleculeLog(LogSection):
    """What is printed while a training runs, and where metrics go beside metrics.jsonl."""

    rdkit: bool = True
    """Whether to check each iteration's molecules with RDKit (validity, uniqueness), for the log."""


class MoleculeEvaluationSection(EvaluationSection):
    """The before/after table that a run ends with."""

    profile: Literal["edm-2022", "edm-2022-single-bonds", "rdkit-xyz2mol"] = "edm-2022"
    """Where bonds come from: `edm-2022`, the published table of bond lengths; `edm-2022-single-bonds`, the same with
    each bond as a single one, the published metric of GEOM-Drugs; `rdkit-xyz2mol`, RDKit's perception, with corrected
    valences."""
    relaxed: CountOrNone = 0
    """Samples on each side of the table that are judged once more after a relaxation by GFN2-xTB; 0: none."""
    posebusters: CountOrNone = 0
    """Samples on each side of the table that PoseBusters checks (needs `pip install 'atomrl[eval]'`); 0: none."""
    regressor: str | None = None
    """Folder that `atomrl pretrain regressor` wrote. Its network predicts the property that a conditional model was
    asked for; the table then has rows of the mean distance to what was asked for; null: no such rows."""
    second_judge: Annotated[str | None, AfterValidator(_second_judge)] = None
    """Another force field by name, whose forces stand in a table of their own; `ani` is ANI-1x, which knows H, C, N and
    O (needs `pip install 'atomrl[ani]'`); null: none."""


class MoleculeConfig(Config):
    """A run on molecules; all keys of `Config`, and those of its sections here."""

    domain: Literal["molecules"] = "molecules"
    best_checkpoint_metric: str = "molecule_stability"
    model: MoleculeModel = MoleculeModel()
    dataloader: MoleculeDataloader = MoleculeDataloader()
    reward: MoleculeReward = MoleculeReward()
    filters: FilterOptions = FilterOptions()
    """What RDKit's names cost a molecule."""
    train: MoleculeTrain = MoleculeTrain()
    log: MoleculeLog = MoleculeLog()
    evaluation: MoleculeEvaluationSection = MoleculeEvaluationSection()

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of the advantages of each channel that the reward gives."""
        weights = self.train.channel_weights
        return {channel: weights[channel] for channel in self.reward.channels}

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        """Raise UserError for weights of channels that there are not, and channels none of which has a weight."""
        reward, published = self.reward, MoleculeTrain().channel_weights
        for channel, weight in self.train.channel_weights.items():
            if weight and channel not in reward.channels and weight != published[channel]:
                raise contradiction(
                    f"train.{channel}_adv_weight={weight}, but {reward.why_absent(channel)}, or set the weight to 0"
                )
        if not reward.own and not any(self.channel_weights.values()):
            keys = ", ".join(f"train.{channel}_adv_weight" for channel in reward.channels)
            raise contradiction(f"{keys}: the weight of every channel is 0, and nothing would be learned; raise one")
        return self
