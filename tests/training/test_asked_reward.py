"""A reward toward what was asked for, and the rows of an evaluation about it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_backbone import TINY, alpha, write, write_conditional

from atomrl.checkpoints.backbone import load_backbone
from atomrl.checkpoints.regressor import save_regressor
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.conditioning import Property, PropertyConditioning
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, Structures
from atomrl.domains.molecules import MoleculeDomain
from atomrl.evaluation.evaluate import SamplePlan, draw
from atomrl.networks.molecule_regressor import MoleculeRegressor, RegressorConfig
from atomrl.rewards.components import PredictorReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.listing import MOLECULES
from atomrl.testing import check_reward
from atomrl.util.errors import UserError

PLAN = SamplePlan(40, 10, 1)


@pytest.fixture
def regressor(tmp_path: Path) -> Path:
    """Predicts ten times the number of atoms, exactly."""
    network = MoleculeRegressor(RegressorConfig(hidden=8, edge_hidden=4, layers=1), "alpha")
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.zeros_(network.last.bias)
    network.reference[:-1] = 10.0
    save_regressor(tmp_path / "regressor", network, "Bohr^3", {"mae": 0.5}, {})
    return tmp_path / "regressor"


def samples(qm9_test: Structures) -> tuple[Structures, Prompts, PropertyConditioning]:
    """Molecules that were asked for 9 to 11 times their number of atoms."""
    some = qm9_test[slice(0, 12)]
    sizes = some.sizes.numpy()
    rng = np.random.Generator(np.random.PCG64(1))
    known = np.repeat(sizes, 50)
    values = Property.of(known, known * rng.uniform(9, 11, 600), "Bohr^3")
    conditioning = PropertyConditioning(("alpha",), {"alpha": values})
    places = torch.arange(12)
    context = conditioning.context(some.sizes, places, 3, 0)
    return some, Prompts(3, 0, some.sizes, places, places, context), conditioning


def test_the_reward_is_minus_the_squared_distance_to_each_prompts_value(regressor: Path, qm9_test: Structures) -> None:
    some, prompts, conditioning = samples(qm9_test)
    component = PredictorReward(regressor, "alpha", "asked")
    reward = ReinforceReward([component], listing=MOLECULES, totals=False, conditioning=conditioning)
    reward.scope = "per_sample"
    asked = conditioning.values(prompts.context)["alpha"]
    expected = -(10.0 * some.sizes - asked).square()
    torch.testing.assert_close(reward.score(some, prompts).channels["alpha"], expected, rtol=1e-4, atol=1e-3)
    check_reward(reward, some, prompts)
    fixed = ReinforceReward([PredictorReward(regressor, "alpha", 100.0)], listing=MOLECULES, totals=False)
    found = fixed.score(some, prompts).channels["alpha"]
    torch.testing.assert_close(found, -(10.0 * some.sizes.double() - 100.0).square(), rtol=1e-5, atol=1e-3)


def test_what_has_no_value_says_why(regressor: Path, qm9_test: Structures) -> None:
    some, prompts, conditioning = samples(qm9_test)
    broken = Structures(some.numbers.clone(), some.positions, some.mask)
    broken.numbers[3, 0] = 35
    reward = ReinforceReward(
        [PredictorReward(regressor, "alpha", "asked")], listing=MOLECULES, totals=False, conditioning=conditioning
    )
    assert reward.score(broken, prompts).reasons == (None,) * 3 + ("no_prediction",) + (None,) * 8
    unasked = Prompts(3, 0, prompts.sizes, prompts.group_ids, prompts.sample_ids)
    table = reward.score(some, unasked)
    assert set(table.reasons) == {"not_asked"}
    assert table.channels["alpha"].isnan().all()


def component(folder: Path, target: str) -> str:
    return (
        "reward.components=[{_target_: atomrl.rewards.components.PredictorReward, "
        f"predictor: {folder}, target_name: alpha, target_value: {target}, weight: 1}}]"
    )


ALONE = [*TINY, "train.force_adv_weight=0", "train.energy_adv_weight=0", "reward.use_energy=false"]


def test_a_training_toward_what_is_asked_and_its_table(
    regressor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_conditional(tmp_path / "net")
    options = [*ALONE, f"model.backbone={folder}", component(regressor, "asked"), "dataloader.epoches=1"]
    main(["train", "--config-name", "demo_fed_grpo", *options, f"save_path={tmp_path / 'run'}"])
    capsys.readouterr()
    table = ["--base", str(folder), "--trained", str(tmp_path / "run"), "--num-molecules", "6", "--time-step", "5"]
    main(["evaluate", *table, f"evaluation.regressor={regressor}", "--output", str(tmp_path / "table"), "--known", "3"])
    page = (tmp_path / "table" / "evaluation.md").read_text()
    rows = [line for line in page.splitlines() if "asked" in line]
    assert len(rows) == 2
    assert rows[0].startswith("| alpha, distance of predicted from asked, mean ↓, Bohr^3 | yes |")
    assert "/ 0 scored" in rows[0]  # nobody asked for the known molecules


def test_rows_of_an_evaluation(regressor: Path, tmp_path: Path) -> None:
    folder = write_conditional(tmp_path / "net")
    config = load_config("demo", [f"model.backbone={folder}", f"evaluation.regressor={regressor}", "reward.workers=1"])
    model, domain = load_backbone(str(folder)), MoleculeDomain()
    prompts, drawn = draw(model, PLAN, 1, torch.device("cpu"), "draw")
    asked = model.conditioning.values(prompts.context)["alpha"]
    with domain.panel(config, model) as panel:
        judged = panel.judge(drawn, None, prompts).metrics
    assert judged.summary["alpha_error"].value == pytest.approx(float((10.0 * drawn.sizes - asked).abs().mean()), 1e-3)
    means = {size: float(alpha().mean_of(torch.tensor([size]))) for size in (4, 6, 7)}
    expected = np.mean([abs(means[s] - a) for s, a in zip(drawn.sizes.tolist(), asked.tolist(), strict=True)])
    assert judged.summary["alpha_error_by_size"].value == pytest.approx(expected, 1e-3)
    assert "0.5 Bohr^3" in judged.conditions["alpha_predicted_by"]


def test_an_unconditional_model_cannot_be_held_to_a_value(regressor: Path, tmp_path: Path) -> None:
    model, domain = load_backbone(str(write(tmp_path / "net"))), MoleculeDomain()
    config = load_config("demo_fed_grpo", [*ALONE, component(regressor, "asked")])
    with pytest.raises(UserError, match=r"pays for the alpha that a sample was asked for, and .* is unconditional"):
        domain.reward(config, model)
    with pytest.raises(UserError, match=r"predicts alpha, and the model is unconditional"):
        domain.panel(load_config("demo", [f"evaluation.regressor={regressor}"]), model)
    with pytest.raises(UserError, match="target_value of PredictorReward must be a finite number"):
        PredictorReward(regressor, "alpha", "nearest")


def test_prompts_of_groups_keep_their_rows(tmp_path: Path) -> None:
    model = load_backbone(str(write_conditional(tmp_path / "net")))
    prompts, drawn = draw(model, PLAN, 2, torch.device("cpu"), "draw")
    assert torch.equal(prompts.sizes, drawn.sizes)
    plan = PromptPlan(SizeDistribution(model.sizes), 40, 2, 1, model.conditioning).prompts(0)
    assert torch.equal(prompts.context, plan.context[prompts.sample_ids])
