"""`atomrl data reference`: what generated crystals are compared with, out of a set of one's own."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomrl.chemistry.hull import Hull, HullKey
from atomrl.data.packed_crystals import SHIPPED, PackedCrystals
from atomrl.data.reference_file import FEATURES_FILE, REFERENCE_FILE, save_features, save_reference
from atomrl.force_fields.build import build_crystal_force_field, crystal_hull_file
from atomrl.measures.physics import HullForceField, reference_features
from atomrl.reference.energies import CHUNK, EnergyFile, energy_file, find_energies
from atomrl.reference.hulls import closed_hull, lowest_phases, missing_elements, require_element
from atomrl.reference.phases import Phases, joined, read_phases
from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable
from atomrl.workers.local import LocalWorkers

STEPS = 300
"""Of a relaxation, at most."""

KEY = "--force-field"


def reference_command(arguments: Sequence[str]) -> None:
    """Make a reference set, a hull and features as the words after `atomrl data reference` say.

    Raises:
        UserError: a word is wrong; as `build_reference`.
    """
    options = _parsed(arguments)
    chosen, workers = _force_field(options.force_field), LocalWorkers(options.workers)
    output = _output(options.sources, options.output)
    known = joined([read_phases(source, workers) for source in options.sources])
    phases = joined([known, *(read_phases(source, workers) for source in options.phases)])
    plan = _plan(output, crystal_hull_file(chosen, KEY), options, workers.count)
    with build_crystal_force_field(
        chosen, workers, options.device, options.batch_size, gradients=options.relax, key=KEY
    ) as force_field:
        energies = begin_hull(phases, force_field, plan)  # before anything is written over
        if (output / REFERENCE_FILE).is_file() or not _is_of(output, options.sources):
            save_reference(output / REFERENCE_FILE, training_crystals(known))
        if options.vae is not None:
            keep_features(output, options.vae, training_crystals(known))
        print(build_hull(phases, force_field, plan, energies))


@dataclass(frozen=True)
class Plan:
    """Where a hull goes and how it is made.

    Attributes:
        folder: of the hull and of the energies so far.
        hull_file: name of the hull's file.
        relax_steps: before an energy is taken; 0: of the crystals as they are.
        at_once: crystals between two savings.
    """

    folder: Path
    hull_file: str
    relax_steps: int = 0
    at_once: int = CHUNK

    @property
    def hull(self) -> Path:
        """Path of the hull."""
        return self.folder / self.hull_file

    @property
    def energies(self) -> Path:
        """Path of the energies so far."""
        name = self.hull_file.removesuffix(".json").replace("hull", "energies", 1)
        return self.folder / f"{name}.jsonl"


def begin_hull(phases: Phases, force_field: HullForceField, plan: Plan) -> EnergyFile:
    """The energies that are known of a hull; nothing but an empty file of them is written.

    Raises:
        UserError: the folder holds a hull or energies of another force field, or relaxed where these are not, no phase
            is a pure element, a file cannot be written.
    """
    require_element(phases.crystals)
    if plan.hull.is_file():
        remedy = f"delete {plan.hull} and {plan.energies} to make them anew, or write to another folder"
        relaxed = bool(plan.relax_steps)
        Hull.load(plan.hull).require(force_field.model_id, force_field.correction, relaxed=relaxed, remedy=remedy)
    return energy_file(plan.energies, force_field, plan.relax_steps)


def build_hull(phases: Phases, force_field: HullForceField, plan: Plan, known: EnergyFile) -> str:
    """Evaluate known crystals, those that are not yet, and write the hull of their energies.

    Args:
        phases: the crystals.
        force_field: of the energies, with forces and stress if they are relaxed first.
        plan: where and how.
        known: of `begin_hull`.

    Returns:
        What was made, in lines for people.

    Raises:
        UserError: no pure element has an energy, a file cannot be written.
    """
    started = time.monotonic()
    energies = find_energies(phases.crystals, force_field, known, plan.relax_steps, plan.at_once)
    entries = lowest_phases(phases.crystals, phases.ids, energies)
    version, relaxed = data_version(plan.folder.resolve().name, phases), bool(plan.relax_steps)
    key = HullKey(force_field.model_id, force_field.correction, version, relaxed)
    hull = closed_hull(key, entries, energies)
    hull.save(plan.hull)
    lines = [
        f"{len(entries):,} formulas of {int(np.isfinite(energies.per_atom).sum()):,} crystals in {plan.hull}, "
        f"{time.monotonic() - started:.0f} s; failures: {energies.failures}"
    ]
    if missing := missing_elements(phases.crystals, hull):
        lines.append(
            f"no pure phase of {', '.join(missing)}: crystals with these elements shape no hull, and samples with them "
            "fail as element_outside_hull; --phases names more known crystals"
        )
    return "\n".join(lines)


def data_version(name: str, phases: Phases) -> str:
    """Name of a set of crystals and a hash of what is in it, whatever the order."""
    digests = sorted(phases.crystals.digests)
    return f"{name}-{hashlib.sha256(''.join(digests).encode()).hexdigest()[:8]}"


def training_crystals(phases: Phases) -> PackedCrystals:
    """Those that novelty and diversity are measured against."""
    return phases.crystals.select(np.array(phases.training, dtype=np.int64))


def keep_features(output: Path, model: str, crystals: PackedCrystals) -> None:
    """Encode crystals by the VAE of a model and keep their features."""
    from atomrl.checkpoints.crystal import load_crystal_backbone  # noqa: PLC0415 - torch models load slowly

    vae = load_crystal_backbone(model).vae
    save_features(output / FEATURES_FILE, reference_features(vae, crystals.structures()), vae, crystals)
    print(f"features of {len(crystals):,} crystals in {output / FEATURES_FILE}")


def _plan(folder: Path, hull_file: str, options: argparse.Namespace, workers: int) -> Plan:
    """What the words ask for. A relaxation takes up to `STEPS` evaluations, so that fewer go between two savings."""
    if not options.relax:
        return Plan(folder, hull_file)
    return Plan(folder, hull_file, STEPS, min(CHUNK, 2 * workers * options.batch_size))


def _output(sources: Sequence[str], output: Path | None) -> Path:
    """The folder that is written.

    Raises:
        UserError: none is given and the source is none, or it cannot be written.
    """
    folder = Path(sources[0]) if output is None else output
    if output is None and not (folder.is_dir() and _is_of(folder, sources)):
        raise UserError(f"--output: give a folder for what is made of {', '.join(sources)}")
    return require_writable(folder, str(folder))


def _is_of(folder: Path, sources: Sequence[str]) -> bool:
    """Whether a folder is all that there is of sources: then a run finds their crystals in its CSV files."""
    return len(sources) == 1 and sources[0] != SHIPPED and folder.resolve() == Path(sources[0]).resolve()


def _force_field(text: str) -> str | Mapping[str, Any]:
    """A name, or a mapping as a configuration has it.

    Raises:
        UserError: it is neither.
    """
    try:
        read: Any = OmegaConf.to_container(OmegaConf.create(f"{KEY}: {text}"))  # as a run's YAML: 1e-3 is a number
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{KEY} {text}: neither a name nor a mapping {{_target_: name, key: value}}") from error
    chosen = read[KEY]
    if not isinstance(chosen, str | dict):
        raise UserError(f"{KEY} {text}: neither a name nor a mapping {{_target_: name, key: value}}")
    return chosen


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The words of the command.

    Raises:
        UserError: a number that cannot be.
    """
    parser = CommandParser(
        prog="atomrl data reference",
        description="make a hull, and the set that novelty and diversity compare with, of known crystals; a stopped "
        "command continues when it is given again",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="known crystals: a folder with train.csv, a .csv with material_id and cif, a .json[.gz] of entries, or "
        "prototypes, the shipped set",
    )
    parser.add_argument(
        "--phases", nargs="+", default=[], metavar="SOURCE", help="more known crystals, used for the hull only"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for what is made; if not given, the folder that is the only source"
    )
    parser.add_argument(
        "--force-field",
        default="chgnet",
        help="what computes energies: chgnet (the default), mace, sevennet, uma, or {_target_: name, key: value}",
    )
    parser.add_argument("--relax", action="store_true", help="relax each crystal first, by the same force field")
    parser.add_argument(
        "--vae", help="model whose VAE computes features for the diversity rewards, which are kept beside the hull"
    )
    parser.add_argument(
        "--workers", type=int, help="number of processes, of one thread each; one per core if not given"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        help="crystals that the force field evaluates at once; default 16; a calculator of ASE takes one at a time",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="where torch computes; auto, the default, takes a GPU where there is one; a calculator of ASE has "
        "options of its own for that",
    )
    return parser.parse_args(arguments)
