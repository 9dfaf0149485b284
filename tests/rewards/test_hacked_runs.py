"""Small trainings that hack a plain reward, and the same trainings with the option that stops it.

A random latent diffusion of crystals of two atoms, whose physics is made up: what costs hours in earnest takes seconds.
"""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.checkpoints.crystal import crystal_backbone_of
from atomrl.checkpoints.stored import read_stored
from atomrl.core.iteration import IterationConfig, iterate
from atomrl.core.objectives.grpo import GRPO, GRPOConfig
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Structures
from atomrl.core.rollout import RolloutConfig
from atomrl.core.scoring import Scorer
from atomrl.core.stages import FailedScores
from atomrl.core.update import UpdateConfig
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.policies.crystal import Sampling
from atomrl.rewards.base import RewardComponent
from atomrl.rewards.components import CreativityReward, EnergyReward
from atomrl.rewards.fresh_formula import FreshFormulaReward
from atomrl.rewards.pure_elements import check_compounds
from atomrl.rewards.reinforce import ReinforceReward

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_train_crystals import backbone

EXAMPLE = Path(__file__).parents[2] / "examples" / "reward_hacks.py"
ITERATIONS, LAST = 18, 4
CAESIUM = 55


class Hull:
    """Elements lie at the hull, compounds 0.2 eV/atom above it, and of what holds caesium nothing is known."""

    names = ("e_above_hull", "hull_entries")

    def __init__(self, element: float = 0.0, compound: float = 0.2, caesium: float | None = None) -> None:
        self.element, self.compound, self.caesium = element, compound, caesium

    def measure(self, batch: SoundSamples) -> dict[str, Metric]:
        above, entries = [], []
        for crystal in batch.crystals:
            bare = self.caesium is not None and CAESIUM in crystal.atomic_numbers
            pure = len(crystal.composition) == 1
            above.append(self.caesium if bare else self.element if pure else self.compound)
            entries.append(0 if bare else 3)
        reasons = (None,) * len(batch)
        columns = {"e_above_hull": above, "hull_entries": entries}
        return {name: Metric(torch.tensor(column, dtype=torch.float64), reasons) for name, column in columns.items()}

    def close(self) -> None:
        """Nothing to give back."""


class NewCompounds:
    """Elements are known, and every compound is new."""

    names = ("unique", "novel", "amd_distance")

    def measure(self, batch: SoundSamples) -> dict[str, Metric]:
        novel = [float(len(crystal.composition) > 1) for crystal in batch.crystals]
        columns = {"unique": [1.0] * len(batch), "novel": novel, "amd_distance": [0.0] * len(batch)}
        reasons = (None,) * len(batch)
        return {name: Metric(torch.tensor(column, dtype=torch.float64), reasons) for name, column in columns.items()}

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backbone(tmp_path_factory.mktemp("backbone") / "model")


def trained(place: Path, reward: ReinforceReward, measure: Callable[[Structures], float]) -> tuple[float, float]:
    """GRPO with a reward: a number of the samples in the first iterations, and in the last, means of `LAST`."""
    model = replace(crystal_backbone_of(read_stored(str(place))), sampling=Sampling("ddim"))
    policy, scorer = model.policy(), Scorer(reward)
    optimizer = torch.optim.AdamW(policy.trainable().parameters(), lr=1e-2)
    plan = PromptPlan(SizeDistribution({2: 1}), groups=8, samples_per_group=16)
    options = {"clip_ratio": 0.2, "kl_weight": 0.0, "entropy_weight": 0.0, "step_weighting": "balanced"}
    objective = GRPO(GRPOConfig(num_group_samples=16, group_reward_norm=True, **options))
    config = IterationConfig(RolloutConfig(5, 128), UpdateConfig(epoch_per_rollout=5, exploded_above=1e5))
    found = []
    for iteration in range(ITERATIONS):
        prompts = plan.prompts(iteration)
        done = iterate(policy, prompts, scorer, [FailedScores("worst")], objective, optimizer, config)
        reward.remember(done.trajectory.structures)
        found.append(measure(done.trajectory.structures))
    scorer.close()
    return sum(found[:LAST]) / LAST, sum(found[-LAST:]) / LAST


def pure(samples: Structures) -> float:
    """Share of samples of one element."""
    return float((samples.numbers == samples.numbers[:, :1]).all(1).double().mean())


def with_caesium(samples: Structures) -> float:
    """Share of samples that hold caesium."""
    return float((samples.numbers == CAESIUM).any(1).double().mean())


def pure_caesium(samples: Structures) -> float:
    """Share of samples of nothing else."""
    return float((samples.numbers == CAESIUM).all(1).double().mean())


def formulas(samples: Structures) -> float:
    """exp of the entropy of the samples' formulas."""
    counts = Counter(tuple(sorted(numbers)) for numbers in samples.numbers.tolist())
    shares = torch.tensor(list(counts.values()), dtype=torch.float64) / len(samples)
    return float(torch.exp(-(shares * shares.log()).sum()))


def test_pure_elements(place: Path) -> None:
    """They are at the hull, so that energy alone pays most for them; as no crystals they go."""
    begin, plain = trained(place, ReinforceReward([EnergyReward()], providers=[Hull()]), pure)
    guarded = ReinforceReward([EnergyReward()], providers=[Hull()], check=check_compounds)
    _, stopped = trained(place, guarded, pure)
    assert plain > begin
    assert stopped < begin - 0.1


def test_a_bare_hull(place: Path) -> None:
    """Where nothing is known all is stable: the plain reward drives there, one that abstains does not."""

    def reward(component: RewardComponent) -> ReinforceReward:
        return ReinforceReward(
            [component], providers=[Hull(0.3, 0.3, -1.0)], check=lambda samples: [None] * len(samples)
        )

    begin, plain = trained(place, reward(EnergyReward()), with_caesium)
    _, stopped = trained(place, reward(EnergyReward(min_entries=1)), with_caesium)
    assert plain > begin + 0.1
    assert stopped < begin + 0.05


def test_below_the_hull(place: Path) -> None:
    """All lies at the hull, and what holds caesium far below it, by a mistake; with the floor that is worth no more."""

    def reward(component: RewardComponent) -> ReinforceReward:
        return ReinforceReward(
            [component], providers=[Hull(0.0, 0.0, -1.0)], check=lambda samples: [None] * len(samples)
        )

    begin, plain = trained(place, reward(EnergyReward(floor=None)), with_caesium)
    _, stopped = trained(place, reward(EnergyReward(floor=0.0)), with_caesium)
    assert plain > begin + 0.1
    assert stopped < begin + 0.05


def test_half_of_the_goal(place: Path) -> None:
    """What holds caesium is stable, compounds are new: a sum pays for pure caesium, a product does not."""

    def reward(combine: str) -> ReinforceReward:
        components = [EnergyReward(normalize_fn="norm"), CreativityReward()]
        providers = [Hull(0.2, 0.2, 0.0), NewCompounds()]
        return ReinforceReward(
            components, providers=providers, check=lambda samples: [None] * len(samples), combine=combine
        )

    begin, plain = trained(place, reward("sum"), pure_caesium)
    _, stopped = trained(place, reward("product"), pure_caesium)
    assert plain > begin + 0.02
    assert stopped < begin + 0.02


def test_one_formula_again_and_again(place: Path) -> None:
    """The discount takes from a formula what it was paid before; the policy goes on to others."""

    def reward(*components: RewardComponent) -> ReinforceReward:
        return ReinforceReward(components, providers=[Hull(), DrawnBefore()], combine="product")

    energy = EnergyReward(normalize_fn="norm")
    begin, plain = trained(place, reward(energy), formulas)
    _, stopped = trained(place, reward(energy, FreshFormulaReward(halved_at=4.0)), formulas)
    assert plain < begin
    assert stopped > plain


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Real physics: what the page's table says, and the command on that page prints."""
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    rows = capsys.readouterr().out.splitlines()[1:]
    found = [[float(number) for number in row[20:].split()[:2]] for row in rows]  # behind the option's name
    expected = [(0, float("nan")), (1.64, 0), (0, -1), (1.06, 0.06), (1, 0), (1.92, 0.92), (1, 0.25)]
    assert np.array(found) == pytest.approx(np.array(expected), abs=0.015, nan_ok=True)
