"""DiffusionNFT without a framework: finished samples teach through the denoising loss, no step of the walk is kept.

No Lightning, no configuration, no files: the parts of one iteration, and a loop around it.
"""

import torch

from atomrl.core.iteration import IterationConfig, iterate
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.forward_options import NFTOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.rollout import RolloutConfig
from atomrl.core.scoring import Scorer
from atomrl.core.stages import FailedScores
from atomrl.core.update import UpdateConfig
from atomrl.policies.toy import LearnedStdGaussian

PLACE = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)


class Near:
    """Wants the atoms at a place, Å; larger is better, 0 is best."""

    scope = "per_sample"  # a sample's score depends on that sample alone

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """One channel, (B,) float64, without failures."""
        distances = (structures.positions.double() - PLACE).norm(dim=2) * structures.mask
        errors = distances.square().sum(1) / structures.sizes
        return RewardTable({"near": -errors}, reasons=(None,) * len(structures))

    def close(self) -> None:
        """Nothing to give back."""


def main(iterations: int = 30) -> list[float]:
    """Train; the mean reward of each iteration's samples."""
    policy = LearnedStdGaussian(mean=torch.zeros(3), variance=0.25)
    plan = PromptPlan(SizeDistribution({3: 1, 4: 1, 5: 1}), groups=4, samples_per_group=16, seed=0)
    compare = FedGRPO(FedGRPOConfig(channel_weights={"near": 1.0})).advantages
    objective = NFT(NFTOptions(times=4, max_time=0.8, clip_advantage=2.5), compare)
    optimizer = torch.optim.Adam(policy.trainable().parameters(), lr=0.03)
    config = IterationConfig(RolloutConfig(time_step=20), UpdateConfig(num_inner_batch=4))
    scorer, rewards = Scorer(Near()), []
    for iteration in range(iterations):
        prompts = plan.prompts(iteration)
        done = iterate(policy, prompts, scorer, [FailedScores("worst")], objective, optimizer, config)
        rewards.append(float(done.table.channels["near"].mean()))
        print(f"iteration {iteration}: reward {rewards[-1]:.3f}, moved {done.stats['moved']:.4f}")
    scorer.close()
    return rewards


if __name__ == "__main__":
    main()
