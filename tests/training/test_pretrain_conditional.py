"""Pre-training on a property of QM9: from a backbone without it, on one half, resumable."""

from pathlib import Path

import pytest
import torch
from small_backbone import write_conditional
from test_pretrain import SMALL

from atomrl.checkpoints.backbone import load_backbone
from atomrl.data.batches import pad
from atomrl.data.qm9 import load_qm9, split
from atomrl.data.qm9_properties import distributions, with_properties
from atomrl.diffusion.edm import project
from atomrl.networks.edm import EDMNetwork
from atomrl.policies.molecule import encode
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.edm import PretrainEDM
from atomrl.pretraining.edm_run import pretrain_edm
from atomrl.util.errors import UserError

TRAIN = ["context=alpha", "half=second", *SMALL[3:], "train.decay_steps=1"]
SMALL_RUN = [*SMALL[:3], *TRAIN]


@pytest.fixture(scope="module")
def parts():
    return split(with_properties(load_qm9(), ["alpha", "mu"]))


def test_qm9s_values(parts) -> None:
    """Methane has 13.21 Bohr^3 and no dipole, water 6.31 Bohr^3 and 1.85 Debye (Ramakrishnan et al. 2014)."""
    every = with_properties(load_qm9(), ["alpha", "mu"])
    assert every.ids[:3].tolist() == [1, 2, 3]
    assert every.properties["alpha"][[0, 2]].tolist() == [13.21, 6.31]
    assert every.properties["mu"][[0, 2]].tolist() == [0.0, 1.8511]
    for molecules in parts.values():  # rows follow their molecules
        row = len(molecules) // 2
        assert molecules.properties["alpha"][row] == every.properties["alpha"][every.ids == molecules.ids[row]]


def test_halves_share_nothing(parts) -> None:
    first, second = (set(parts[half].ids.tolist()) for half in ("first", "second"))
    assert len(first) == len(second) == 50_000
    assert not first & second
    assert first | second == set(parts["train"].ids.tolist())
    assert not (first | second) & (set(parts["validation"].ids.tolist()) | set(parts["test"].ids.tolist()))


def test_before_the_first_step_it_is_the_shipped_model(parts) -> None:
    shipped = load_backbone("edm_qm9_small").network
    module = PretrainEDM(shipped.config.changed(context_features=1), PretrainConfig())
    module.start_from(shipped)
    batch = pad(parts["validation"].select(torch.arange(8).numpy()))
    latents = encode(batch.numbers, batch.positions, batch.mask, shipped.config)
    noise = project(torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)), batch.mask)
    time = torch.linspace(0, 1, 8)
    with torch.no_grad():
        expected = shipped(latents + noise, time, batch.mask)
        for network in (module.network, module.average):
            for context in (torch.zeros(8, 1), torch.linspace(-3, 3, 8)[:, None]):
                assert torch.equal(network(latents + noise, time, batch.mask, context), expected)


def test_a_networks_context_is_the_scaled_property(tmp_path: Path, parts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, forward = [], EDMNetwork.forward

    def watched(self, latents, time, mask, context=None):
        seen.append((mask.sum(1).long(), context))
        return forward(self, latents, time, mask, context)

    monkeypatch.setattr(EDMNetwork, "forward", watched)
    folder = pretrain_edm([*SMALL_RUN, f"save_path={tmp_path / 'run'}", "train.steps=2", "val_batches=0"])
    made = load_backbone(str(folder))
    known = distributions(parts["second"])["alpha"]
    assert made.conditioning.names == ("alpha",)
    assert made.conditioning.known["alpha"].mean == known.mean
    assert torch.equal(made.conditioning.known["alpha"].counts, known.counts)
    assert sum(made.sizes.values()) == 50_000
    for _, context in seen:
        values = made.conditioning.values(context)["alpha"].numpy()
        assert abs(parts["second"].properties["alpha"][:, None] - values).min(0).max() < 1e-3
    assert len(seen) == 2


def test_it_learns_from_the_context_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    plain = pretrain_edm([*SMALL, "train.steps=2", f"save_path={tmp_path / 'plain'}"])

    def run(name: str, steps: int) -> dict[str, torch.Tensor]:
        options = [*TRAIN, f"backbone={plain}", f"save_path={tmp_path / name}", f"train.steps={steps}"]
        return load_backbone(str(pretrain_edm(options))).network.state_dict()

    run("cut", 3)
    resumed, straight = run("cut", 6), run("straight", 6)
    assert all(torch.equal(value, straight[name]) for name, value in resumed.items())
    assert straight["dynamics.egnn.embedding.weight"][:, -1].abs().min() > 0
    with pytest.raises(UserError, match="began with half=second, not half=first"):
        pretrain_edm([*TRAIN, "half=first", f"backbone={plain}", f"save_path={tmp_path / 'cut'}"])


def test_a_conditional_backbone_keeps_its_scale(tmp_path: Path) -> None:
    start = load_backbone(str(write_conditional(tmp_path / "start")))
    options = [*TRAIN, f"backbone={tmp_path / 'start'}", "train.steps=1", f"save_path={tmp_path / 'run'}"]
    made = load_backbone(str(pretrain_edm(options))).conditioning.known["alpha"]
    before = start.conditioning.known["alpha"]
    assert (made.mean, made.mad) == (before.mean, before.mad)
    assert made.sizes.tolist() != before.sizes.tolist()
    with pytest.raises(UserError, match=r"is conditioned on alpha: set context=\[alpha\]"):
        pretrain_edm([f"backbone={tmp_path / 'start'}", f"save_path={tmp_path / 'other'}"])


def test_molecules_of_ones_own_have_no_properties(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=some\.sdf: context and half are of QM9's molecules"):
        pretrain_edm(["data=some.sdf", "context=alpha", f"save_path={tmp_path / 'run'}"])
