"""`atomrl check-reward`, `check-force-field`, `check-backbone`: does what the user made keep its promises?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from atomrl.checkpoints.stored import read_stored
from atomrl.config import CrystalConfig, as_trained
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.domains import domain_for, model_of
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from atomrl.rewards.reinforce import ReinforceReward

BATCH = 6
"""Samples that a backbone is tried on."""


def check_reward_command(options: argparse.Namespace) -> None:
    """Try a reward of the user's on a few crystals or molecules; metrics are measured as in a run by default.

    Raises:
        UserError: it cannot be made, or breaks a promise.
    """
    from atomrl.rewards.check import example_crystals, load_reward, report  # noqa: PLC0415
    from atomrl.rewards.reinforce import ReinforceReward  # noqa: PLC0415
    from atomrl.structures.examples import example_molecules  # noqa: PLC0415

    reward = load_reward(options.reward, options.molecules)
    try:
        if isinstance(reward, ReinforceReward) and reward.missing_metrics:
            _provide(reward, options.molecules)
        found = report(reward, *(example_molecules() if options.molecules else example_crystals()))
    finally:
        reward.close()
    print("\n".join(found.lines()))
    if found.problems:
        raise UserError(f"{options.reward} does not keep what a reward promises: {found.problems[0]}")


def check_force_field_command(options: argparse.Namespace) -> None:
    """Compare a force field's forces on a few molecules with finite differences of its energy.

    Raises:
        UserError: it cannot be made, fails on all of them, or its forces are not those of its energy.
    """
    from atomrl.config.molecules import MoleculeReward  # noqa: PLC0415
    from atomrl.force_fields.build import build_force_field  # noqa: PLC0415
    from atomrl.structures.examples import example_molecules  # noqa: PLC0415
    from atomrl.testing import check_force_field  # noqa: PLC0415

    settings = {**dict(MoleculeReward()), "workers": 1, "timeout": 60.0, "device": "auto"}
    force_field = build_force_field({"_target_": options.force_field}, settings)
    try:
        structures, _ = example_molecules(per_group=1)
        results = force_field.evaluate(structures)
        for row, result in enumerate(results):
            said = f"{result.energy:.4f} eV" if result.reason is None else f"no result: {result.reason}"
            print(f"molecule {row}, {int(structures.sizes[row])} atoms: {said}")
        if all(result.reason is not None for result in results):
            raise UserError(
                f"{options.force_field} has no result for any of {len(results)} molecules: {results[0].reason}"
            )
        check_force_field(force_field, structures, step=1e-3)
    except AssertionError as error:
        raise UserError(f"{options.force_field} does not keep what a force field promises: {error}") from error
    finally:
        force_field.close()
    print("ok")


def check_backbone_command(options: argparse.Namespace) -> None:
    """Try a model as a policy: `testing.check_policy` on samples of different sizes.

    Raises:
        UserError: it cannot be loaded, or breaks a promise.
    """
    from atomrl.testing import check_policy  # noqa: PLC0415

    stored = read_stored(options.backbone)
    domain = domain_for(stored)
    model = model_of(stored, as_trained(domain.name, stored.card))
    sizes = sorted(model.sizes)
    spread = dict.fromkeys((sizes[0], sizes[len(sizes) // 2], sizes[-1]), 1)
    prompts = PromptPlan(SizeDistribution(spread), BATCH, 1, conditioning=model.conditioning).prompts(0)
    print(f"{stored.origin}: {domain.noun} of {sizes[0]} to {sizes[-1]} atoms, {len(prompts)} samples, 20 steps")
    try:
        check_policy(model.policy(), prompts, num_steps=20, tolerance=1e-3)
    except AssertionError as error:
        raise UserError(f"{options.backbone} does not keep what a policy promises: {error}") from error
    print("ok")


def _provide(reward: ReinforceReward, molecules: bool) -> None:
    """Give a reward the metrics that a run gives it by default."""
    if molecules:
        from atomrl.config.molecules import MoleculeReward  # noqa: PLC0415
        from atomrl.domains.molecule_reward import provide_metrics  # noqa: PLC0415

        provide_metrics(reward, MoleculeReward(workers=1))
        return
    from atomrl.checkpoints.crystal import crystal_backbone_of  # noqa: PLC0415 - this and the next need an extra
    from atomrl.domains.crystal_judges import CrystalJudges  # noqa: PLC0415

    config = CrystalConfig()
    judges = CrystalJudges(config.reward, crystal_backbone_of(read_stored(config.model.backbone)).vae)
    reward.provide(*judges.providers(reward.missing_metrics))
