"""`PredictorReward` with a trained predictor on disk, as a configuration names it."""

from pathlib import Path

import pytest
import torch
from conditional_crystals import FORMULA, GAP, backbone
from crystal_models import small_vae
from small_crystal_set import CRYSTALS

from atomrl.checkpoints.predictor import save_predictor
from atomrl.core.records import Prompts
from atomrl.networks.conditions import Condition
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.molecule_regressor import MoleculeRegressor, RegressorConfig
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.rewards.asked import require_asked
from atomrl.rewards.build import build_components
from atomrl.rewards.components import PredictorReward, Scores
from atomrl.rewards.predictor import NetworkPredictor
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.crystals import from_pymatgen
from atomrl.structures.listing import MOLECULES
from atomrl.testing import check_reward
from atomrl.util.errors import UserError

TARGET = "src.rl_module.components.PredictorReward"


def predictor(elements: int = 100) -> CrystalPredictor:
    torch.manual_seed(0)
    vae, config = CrystalVAE(small_vae().config.changed(elements=elements)), PredictorConfig()
    head = PropertyHead(config.inputs(vae.config), ("dft_band_gap", "density"), config)
    head.mean.copy_(torch.tensor([2.0, 5.0]))
    head.std.copy_(torch.tensor([3.0, 1.0]))
    return CrystalPredictor(vae, head, config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_predictor(tmp_path / "predictor", predictor(), {})
    return tmp_path / "predictor"


def prompts(count: int) -> Prompts:
    return Prompts(
        0, 0, torch.tensor([len(crystal) for crystal in CRYSTALS]), torch.zeros(count).long(), torch.arange(count)
    )


def test_a_folder_in_the_configuration(folder):
    options = {"target_name": "dft_band_gap", "target_value": 3.0, "clip_min": 0.0, "normalize_fn": "norm"}
    [component] = build_components([{"_target_": TARGET, "predictor": str(folder), **options}])
    assert isinstance(component, PredictorReward)
    samples = from_pymatgen(CRYSTALS)
    gaps = predictor().predict(samples)["dft_band_gap"].double().clamp(min=0)
    assert gaps.std() > 0.01
    reward = ReinforceReward([component])
    table = reward.score(samples, prompts(len(CRYSTALS)))
    raw = -((gaps - 3.0) ** 2)
    torch.testing.assert_close(table.diagnostics["raw_dft_band_gap"], raw, rtol=1e-4, atol=1e-4)
    expected = (raw - raw.min()) / (raw.max() - raw.min() + 1e-4)
    torch.testing.assert_close(table.channels["dft_band_gap"], expected, rtol=1e-3, atol=1e-3)
    assert table.reasons == (None,) * len(CRYSTALS)
    check_reward(reward, samples, prompts(len(CRYSTALS)))


def test_what_is_asked_for_by_a_class_has_no_distance(folder):
    """The number of a class is none of the property: of the classes 5 and 7 the second is number 1."""
    reward = ReinforceReward([PredictorReward(folder, "density", "asked")])
    for condition in (Condition(name="density", kind="category", categories=8), FORMULA.changed(name="density")):
        with pytest.raises(UserError, match="memory is asked for it by a class or a formula, to which a prediction"):
            require_asked(reward, backbone((condition,)))
    require_asked(reward, backbone((GAP.changed(name="density"),)))


def test_a_path_from_python_and_an_object_give_the_same(folder):
    samples = from_pymatgen(CRYSTALS)
    by_path = PredictorReward(folder, "density").compute(CRYSTALS, batch_gen=samples)
    by_object = PredictorReward(predictor(), "density").compute(CRYSTALS, batch_gen=samples)
    assert isinstance(by_path, Scores)
    assert isinstance(by_object, torch.Tensor)
    torch.testing.assert_close(by_path.values, by_object)


def test_a_network_for_other_samples_is_refused(folder):
    """Of molecules its answer was a traceback after the first rollout; a regressor took a cell for a molecule."""
    with pytest.raises(UserError, match="density predicts by a network that reads crystals, and the samples are molec"):
        ReinforceReward([PredictorReward(folder, "density")], listing=MOLECULES)
    regressor = NetworkPredictor(MoleculeRegressor(RegressorConfig(), "gap"))
    ReinforceReward([PredictorReward(regressor, "gap")], listing=MOLECULES)
    with pytest.raises(UserError, match="gap predicts by a network that reads molecules, and the samples are crystals"):
        ReinforceReward([PredictorReward(regressor, "gap")])


def test_elements_that_its_vae_does_not_know_have_a_reason(tmp_path):
    """Of caesium and barium, the others stand; nothing is invented and nothing stops."""
    save_predictor(tmp_path, predictor(elements=50), {})
    reward = ReinforceReward([PredictorReward(str(tmp_path), "dft_band_gap")])
    table = reward.score(from_pymatgen(CRYSTALS), prompts(len(CRYSTALS)))
    heavy = [max(crystal.atomic_numbers) >= 50 for crystal in CRYSTALS]
    assert sum(heavy) == 2
    assert [reason == "no_prediction" for reason in table.reasons] == heavy
    assert table.channels["dft_band_gap"].isnan().tolist() == heavy


@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("predictor", "bulk_modulus", "PredictorReward wants 'bulk_modulus'; .* knows density, dft_band_gap"),
        ("nowhere", "dft_band_gap", r"no predictor at .*nowhere: .*`atomrl pretrain predictor`"),
        ("", "dft_band_gap", r"no predictor in .* lacks model\.safetensors"),
    ],
)
def test_mistakes_are_found_when_the_reward_is_made(folder, place, target, message):
    entry = {"_target_": TARGET, "predictor": str(folder.parent / place), "target_name": target}
    with pytest.raises(UserError, match=message):
        build_components([entry])
