"""What `atomrl pretrain edm` learns from, QM9 or the user's own molecules, and the network that suits them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rdkit import rdBase

from atomrl.checkpoints.backbone import Backbone
from atomrl.chemistry.bond_entries import missing_pairs
from atomrl.chemistry.bonds import known_elements
from atomrl.chemistry.known_smiles import known_file
from atomrl.chemistry.rdkit import PERCEIVED, PROFILES, MoleculeChecker
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.data.batches import padded_batches
from atomrl.data.own_molecules import OwnMolecules, read_own, split_own
from atomrl.data.qm9 import MoleculeSet
from atomrl.networks.edm import EDMConfig
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole
from atomrl.util.progress import bar

log = logging.getLogger(__name__)

MANY = 20_000
"""Molecules whose bonds RDKit perceives in minutes: 10 to 100 ms each."""

LEFT_OUT_FILE = "left_out.txt"
"""In the run's folder: each entry that is not learned from, and why."""

SHOWN = 12
"""Pairs of elements that a message names."""

BATCH = 512
"""Molecules that RDKit names at a time."""


@dataclass(frozen=True)
class TrainingMolecules:
    """What is learned from.

    Attributes:
        parts: `train` and `validation`.
        elements: symbols, by atomic number.
        name: of the data, for messages.
        own: what was read, for molecules of the user's own.
    """

    parts: dict[str, MoleculeSet]
    elements: tuple[str, ...]
    name: str
    own: OwnMolecules | None = None

    @property
    def card(self) -> dict[str, object]:
        """What the backbone's card says of it."""
        if self.own is None:
            return {}
        counts = {part: len(molecules) for part, molecules in self.parts.items()}
        return {"data": {"from": self.name, **counts, "left_out": len(self.own.left_out)}}


def own_data(path: Path, held_out: float, seed: int) -> TrainingMolecules:
    """Read and split molecules of the user's own; prints what was read and what was left out.

    Raises:
        UserError: as `read_own` and `split_own`.
    """
    own = read_own(path)
    parts = split_own(own.molecules, held_out, seed)
    print(f"{path}: {own.report()}; {len(parts['validation']):,} held out")
    if pairs := ["-".join(pair) for pair in missing_pairs(own.elements)]:
        shown = ", ".join(pairs[:SHOWN]) + (f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else "")
        print(f"the bond table has no length for {shown}: such atoms, near each other, count as no_bond_entry")
    return TrainingMolecules(parts, own.elements, str(path), own)


def fitting_model(
    model: EDMConfig, data: TrainingMolecules, start: Backbone | None, default: EDMConfig, context: Sequence[str] = ()
) -> EDMConfig:
    """The shape of the network: as asked for, or that of the backbone that it starts from, with its context columns.

    Args:
        model: asked for; without elements it takes those of the data.
        data: what is learned from.
        start: the backbone; its shape and elements stay.
        default: the shape of a run that asks for none.
        context: properties that the network is conditioned on.

    Raises:
        UserError: the data holds other elements, the backbone is conditioned on something else, or a shape is asked for
            that the backbone has not.
    """
    elements = model.elements or data.elements
    named = f"model.elements={list(elements)}"
    if start is not None:
        shape = start.network.config
        if model not in (default, type(model)(**dict(shape))):
            raise UserError(
                f"backbone={start.origin} fixes the network: leave model.* out, or train without a backbone"
            )
        elements, named = shape.elements, f"backbone={start.origin} knows {', '.join(shape.elements)}"
    else:
        shape = EDMConfig(**{**dict(model), "elements": elements})
    if missing := [symbol for symbol in data.elements if symbol not in elements]:
        remedy = "add them" if start is None else "leave such molecules out, or train without a backbone"
        raise UserError(f"{named}: {data.name} also holds {', '.join(missing)}; {remedy}")
    if start is not None and start.conditioning is not None and start.conditioning.names != tuple(context):
        names = start.conditioning.names
        raise UserError(
            f"backbone={start.origin} is conditioned on {', '.join(names)}: set context=[{','.join(names)}]"
        )
    if start is None and shape.context_features:
        raise UserError(
            f"model.context_features={shape.context_features}: context=[...] names the columns; leave this out"
        )
    return EDMConfig(**{**dict(shape), "context_features": len(context)})


def require_judged(elements: tuple[str, ...]) -> None:
    """Raise UserError for elements whose stability no table tells.

    Raises:
        UserError: there are some.
    """
    if unknown := [symbol for symbol in elements if symbol not in known_elements()]:
        raise UserError(
            f"the bond table has no valence for {', '.join(unknown)}, and no sample could be called stable: "
            "quality_every=0 trains without looking at samples"
        )


def write_known(folder: Path, data: TrainingMolecules) -> None:
    """Write beside the weights what was left out, and what novelty is measured against, by the names of each profile.

    Raises:
        UserError: the folder cannot be written.
    """
    if data.own is None:
        return
    if data.own.left_out:
        write_whole(folder / LEFT_OUT_FILE, "".join(f"{where}: {why}\n" for where, why in data.own.left_out))
    for profile in PROFILES:
        if profile == PERCEIVED and len(data.parts["train"]) > MANY:
            log.warning(
                "novelty by the profile %s is not prepared: of more than %s molecules that takes hours; give a file of "
                "SMILES as dataloader.smiles_path for it",
                *(profile, f"{MANY:,}"),
            )
            continue
        known = TrainingSmiles.of(_names(data, profile), len(data.parts["train"]), profile, rdBase.rdkitVersion)
        known.save(folder / known_file(profile))


def _names(data: TrainingMolecules, profile: str) -> list[str]:
    """What a profile calls the training molecules, as far as they are valid."""
    molecules = data.parts["train"]
    smiles: list[str] = []
    with MoleculeChecker(None, profile=profile) as checker:
        batches = padded_batches(molecules, BATCH)
        for batch in bar(batches, f"names by {profile}", ceil(len(molecules) / BATCH)):
            smiles += [record.smiles for record in checker.check(batch) if record.smiles is not None]
    return smiles
