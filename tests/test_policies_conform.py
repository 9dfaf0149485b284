"""Every policy passes the same conformance check, and learns a known reward."""

import pytest
import torch

from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.prompts import PromptPlan, SizeDistribution
from atomrl.testing import check_policy


def make(name: str, dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "molecule":
        return MoleculePolicy(EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=2))).to(dtype)
    mean = torch.tensor([0.0, 0, 0, 0.3, -0.5])
    return {"subspace": SubspaceGaussian, "learned_std": LearnedStdGaussian}[name](mean).to(dtype)


@pytest.mark.parametrize("name", ["subspace", "learned_std", "molecule"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-8)])
def test_conforms(name: str, dtype: torch.dtype, tolerance: float) -> None:
    plan = PromptPlan(SizeDistribution({4: 1, 5: 1, 7: 2}), groups=3, samples_per_group=2, seed=3)
    prompts = plan.prompts(0)
    assert len(set(prompts.sizes.tolist())) > 1
    check_policy(make(name, dtype), prompts, num_steps=20, tolerance=tolerance)
