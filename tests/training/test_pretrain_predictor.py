"""Pre-training of a property predictor: it learns, resumes as if uninterrupted, and says what it left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from crystal_models import small_vae
from small_crystal_set import CRYSTALS, packed
from small_pretraining import SMALL

from atomrl.checkpoints.predictor import load_predictor
from atomrl.checkpoints.vae import load_vae, save_vae
from atomrl.cli import main
from atomrl.data.crystal_batches import SizedCrystalBatches, augmented
from atomrl.data.packed_crystals import PackedCrystals, load_splits
from atomrl.data.prototype_set import load_prototypes
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.pretraining import predictor_run as pretrain_predictor_run
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.predictor import PretrainPredictor
from atomrl.pretraining.predictor_errors import Common, Predictions, area_under_roc, draw_parity, predictions
from atomrl.pretraining.predictor_run import pretrain_predictor, standardize, with_properties
from atomrl.util.errors import UserError

GAPS = np.array([8.5, 3.2, np.nan, 1.1, 8.0, 3.0, 7.8, 14.2])
ENERGIES = np.array([-2.0, np.nan, np.nan, 0.0, -1.9, -3.5, -3.0, -3.2])


def measured(rows: slice = slice(None)) -> PackedCrystals:
    """The eight crystals with two properties, some of them unknown."""
    some = packed(CRYSTALS[rows])
    return replace(some, properties={"gap": GAPS[rows], "energy": ENERGIES[rows]})


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    save_vae(folder, small_vae(), {})
    return folder


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    """`data=` means the eight crystals, six to train and two to validate on."""
    splits = pretrain_predictor_run.CrystalSplits(measured(slice(0, 6)), measured(slice(6, 8)))
    monkeypatch.setattr(pretrain_predictor_run, "load_splits", lambda source: splits)
    monkeypatch.setattr(pretrain_predictor_run, "load_test", lambda source: None)


def test_it_learns_a_property_of_real_crystals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CHGNet's formation energies of the shipped set, from the shipped VAE: half the error of the mean."""
    options = ["train.steps=120", "train.decay_steps=80", "train.warmup=10", "train.lr=4e-3", "train.ema_decay=0.9"]
    few = ["threads=1", "val_every=120", "val_batches=1", "store=float16", f"save_path={tmp_path}"]
    main(["pretrain", "predictor", "targets=[formation_energy_per_atom]", *options, *few])
    said = capsys.readouterr().out
    assert "formation_energy_per_atom: 3,958 of 3,958 training crystals have it" in said
    card = json.loads((tmp_path / "model.json").read_text())
    held_out = card["properties_of_test"]["formation_energy_per_atom"]
    assert held_out["structures"] == len(load_prototypes().rows("test"))
    assert held_out["mae"] < 0.6 * held_out["mae_of_the_mean"]
    assert held_out["spearman"] > 0.7
    assert f"mean absolute error {held_out['mae']:.4g} on {held_out['structures']} test crystals" in said
    assert (
        f"formation_energy_per_atom of {held_out['structures']} test crystals" in (tmp_path / "parity.svg").read_text()
    )
    found = card["properties"]["formation_energy_per_atom"]
    assert f"mean absolute error {found['mae']:.4g} on 202 validation crystals" in said
    assert found["mae"] < 0.6 * found["mae_of_the_mean"]
    crystals = load_prototypes()
    train, held = (crystals.rows(split) for split in ("train", "val"))
    energies = crystals.formation_energies
    assert found["mean"] == pytest.approx(float(energies[train].mean()), rel=1e-4)
    assert found["std"] == pytest.approx(float(energies[train].std(correction=0)), rel=1e-4)
    assert found["mae_of_the_mean"] == pytest.approx(float((energies[held] - energies[train].mean()).abs().mean()))
    loaded = load_predictor(tmp_path)
    again = loaded.predict(crystals.structures(held))["formation_energy_per_atom"]
    own = float((again - energies[held]).abs().mean())
    assert own == pytest.approx(found["mae"], rel=0.15)  # as the set has them, not turned and shifted
    assert all(torch.equal(a.half(), a) for a in loaded.vae.state_dict().values())


def test_a_resumed_predictor_equals_an_uninterrupted_one(data: None, vae_folder: Path, tmp_path: Path) -> None:
    """Dropout included; and the VAE in the folder is the one that was read."""

    def run(name: str, steps: int) -> dict[str, torch.Tensor]:
        options = [*SMALL, "targets=[gap,energy]", f"vae={vae_folder}", f"save_path={tmp_path / name}"]
        folder = pretrain_predictor([*options, f"train.steps={steps}"])
        vae = load_vae(vae_folder).state_dict()
        assert all(torch.equal(value, vae[name]) for name, value in load_vae(folder).state_dict().items())
        return load_predictor(folder).head.state_dict()

    first = run("cut", 2)
    torch.manual_seed(17)  # another moment in another process
    resumed, straight = run("cut", 5), run("straight", 5)
    assert all(torch.equal(value, straight[name]) for name, value in resumed.items())
    assert not all(torch.equal(value, straight[name]) for name, value in first.items())
    card = json.loads((tmp_path / "cut" / "model.json").read_text())
    assert card["training"]["steps"] == 5
    assert card["targets"] == ["gap", "energy"]
    logs = [path.read_text().splitlines()[0] for path in tmp_path.glob("straight/log/*/metrics.csv")]
    assert {"loss", "mae", "val_loss", "val_mae"} <= set(",".join(logs).split(","))


def test_a_predictor_does_not_go_on_with_other_values(
    data: None, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same crystals, in another unit or of another column."""
    options = [*SMALL, f"vae={vae_folder}", f"save_path={tmp_path / 'run'}"]
    pretrain_predictor([*options, "targets=[gap]", "train.steps=1"])
    splits = pretrain_predictor_run.load_splits("")
    moved = {
        name: replace(part, properties={"gap": 1000 * part.properties["gap"], "half": part.properties["gap"] / 2})
        for name, part in vars(splits).items()
    }
    monkeypatch.setattr(pretrain_predictor_run, "load_splits", lambda source: replace(splits, **moved))
    for target in ("gap", "gap:half"):
        with pytest.raises(UserError, match=r"last\.ckpt began with values of the properties in data \(SHA-256\)=\w+,"):
            pretrain_predictor([*options, f"targets=[{target}]", "train.steps=2"])


def test_rows_without_a_property_are_reported_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    kept = with_properties(measured(), {"gap": "gap", "formation": "energy"}, "training")
    assert capsys.readouterr().out.splitlines() == [
        "gap: 7 of 8 training crystals have it",
        "formation: 6 of 8 training crystals have it",
    ]
    assert len(kept) == 7  # one has neither
    rows = [0, 1, 3, 4, 5, 6, 7]
    assert list(kept.properties) == ["gap", "formation"]
    np.testing.assert_array_equal(kept.properties["formation"], ENERGIES[rows])
    np.testing.assert_array_equal(kept.sizes, packed().sizes[rows])
    alone = with_properties(measured(), {"energy": "energy"}, "training")
    np.testing.assert_array_equal(alone.properties["energy"], ENERGIES[[0, 3, 4, 5, 6, 7]])


def test_the_loss_counts_what_is_known() -> None:
    crystals = with_properties(measured(), {"gap": "gap", "energy": "energy"}, "training")
    vae, config = small_vae(), PredictorConfig(dropout=0.0)
    head = PropertyHead(config.inputs(vae.config), ("gap", "energy"), config)
    standardize(head, crystals)
    assert head.mean.tolist() == pytest.approx([np.nanmean(GAPS), np.nanmean(ENERGIES)])
    assert head.std.tolist() == pytest.approx([np.nanstd(GAPS), np.nanstd(ENERGIES)])
    module = PretrainPredictor(head, config, PretrainConfig(), vae)
    batch = augmented(crystals, seed=0, step=0)
    terms = module.losses(module.network, batch, "train")
    with torch.no_grad():
        predicted = CrystalPredictor(vae, head, config)(batch.crystals)
    known = [
        (float(predicted[row, column]) - values[row]) / float(head.std[column])
        for column, values in enumerate(crystals.properties.values())
        for row in range(len(crystals))
        if np.isfinite(values[row])
    ]
    assert len(known) == 13
    assert float(terms["loss"].detach()) == pytest.approx(np.mean(np.square(known)), rel=1e-4)
    assert float(terms["mae"].detach()) == pytest.approx(np.mean(np.abs(known)), rel=1e-4)
    terms["loss"].backward()
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_dropout_depends_on_the_step_alone_and_validation_has_none() -> None:
    crystals = with_properties(measured(), {"gap": "gap"}, "training")
    vae, config = small_vae(), PredictorConfig(dropout=0.5)
    module = PretrainPredictor(PropertyHead(config.inputs(vae.config), ("gap",), config), config, PretrainConfig(), vae)
    batch = augmented(crystals, seed=0, step=0)

    def loss(step: int) -> float:
        torch.rand(1)  # somebody else's draw
        return float(module.losses(module.network, replace(batch, step=step), "train")["loss"].detach())

    before = torch.get_rng_state()
    module.losses(module.network, batch, "train")
    assert torch.equal(before, torch.get_rng_state())
    assert loss(0) == loss(0) != loss(1)
    module.eval()
    assert loss(0) == loss(1)


def test_errors_by_hand() -> None:
    """Of a predictor that says its means: both errors are the same, and only known values count."""
    crystals = with_properties(measured(), {"gap": "gap", "energy": "energy"}, "validation")
    config = PredictorConfig()
    vae = small_vae()
    head = PropertyHead(config.inputs(vae.config), ("gap", "energy"), config)
    torch.nn.init.zeros_(head.layers[-1].weight)
    torch.nn.init.zeros_(head.layers[-1].bias)
    head.mean.copy_(torch.tensor([6.0, -2.0]))
    head.std.copy_(torch.tensor([2.0, 1.0]))
    found = {one.name: one.summary() for one in predictions(CrystalPredictor(vae, head, config), crystals, seed=0)}
    assert found["gap"]["mae"] == pytest.approx(np.nanmean(np.abs(GAPS - 6)), rel=1e-5)
    assert found["energy"] == pytest.approx(
        {
            "mae": np.nanmean(np.abs(ENERGIES + 2)),
            "mae_of_the_mean": np.nanmean(np.abs(ENERGIES + 2)),
            "structures": 6,
            "mean": -2.0,
            "std": 1.0,
        },
        rel=1e-5,
    )


def test_a_property_that_most_crystals_lack() -> None:
    """Band gaps, mostly 0: what is asked is which crystals have one, and how large it is."""
    training = np.array([0.0] * 7 + [1.0, 2.0, 4.0, np.nan])
    assert Common.of(training) == Common(0.0, 2.0)
    assert Common.of(np.array([1.0, 2.0, 3.0])) is None
    assert Common.of(np.full(3, np.nan)) is None
    values, predicted = np.array([0.0, 0.0, 0.0, 1.0, 3.0]), np.array([0.1, -0.2, 0.5, 0.5, 2.5])
    one = Predictions("gap", values, predicted, mean=0.7, std=1.2, common=Common(0.0, 2.0))
    found = one.summary()
    assert found["auc"] == pytest.approx((3 + 2.5) / 6)  # of six pairs five in order, one a tie
    assert (found["common"], found["structures_above"]) == (0.0, 2)
    assert found["mae_above"] == pytest.approx(0.5)
    assert found["mae_above_of_constant"] == pytest.approx(1.0)
    assert one.lines("test")[1] == (
        "gap: most are exactly 0; on the 2 above it the error is 0.5, that of their training median 1; area under the "
        "ROC curve 0.917"
    )
    assert "auc" not in replace(one, values=values[:3], predicted=predicted[:3]).summary()
    assert "auc" not in replace(one, common=None).summary()


def test_area_under_roc() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(200) < 0.3, rng.integers(0, 20, 200).astype(float)
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    assert area_under_roc(positive, scores) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_a_parity_plot_is_the_same_each_time(tmp_path: Path) -> None:
    one = Predictions("gap", np.array([0.0, 1.0]), np.array([0.2, 0.8]), mean=0.5, std=0.5)
    for name in ("a.svg", "b.svg"):
        draw_parity([one, replace(one, name="energy")], "test", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_properties_follow_their_crystals() -> None:
    """Through the shipped set's splits, through draws, and into batches."""
    crystals, splits = load_prototypes(), load_splits("prototypes")
    expected = crystals.formation_energies[crystals.rows("val")].double().numpy()
    np.testing.assert_array_equal(splits.validation.properties["formation_energy_per_atom"], expected)
    assert set(splits.train.properties) == {"energy_per_atom", "formation_energy_per_atom", "e_above_hull"}
    known = replace(packed(), properties={"volume": np.abs(np.linalg.det(packed().lattices)).astype(float)})
    for batch in (next(iter(SizedCrystalBatches(known, 4, seed=3))), augmented(known.draw(5, seed=1), 0, 0)):
        moved = batch.to(torch.device("cpu"))
        volumes = torch.linalg.det(moved.crystals.cell).abs()
        torch.testing.assert_close(moved.properties["volume"], volumes, check_dtype=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], r"targets=\[\]: name each property to predict once.*the data has energy, gap"),
        (["targets=[gap,gap]"], "name each property to predict once"),
        (["targets=[gap:]"], "name each property to predict once"),
        (["targets=gap"], "pretrain predictor: "),
        (["targets=[bulk_modulus]"], r"training crystals have no property 'bulk_modulus', they have energy, gap: .*"),
        (["targets=[dft_band_gap:band_gap]"], "no property 'band_gap'"),
        (["targets=[gap]", "model.pooling=max"], "pretrain predictor: model.pooling=max: must be one of mean, sum"),
        (["targets=[gap]", "model.hidden=[3]"], r"model.hidden=\[3\] is not of type tuple\[int, int\] \| None"),
        (["targets=[gap]", "vae=/nowhere"], "no backbone at /nowhere"),
        (["targets=[gap]", "vae=edm_qm9_small"], "holds no crystal VAE"),
        (["targets=[gap]", "store=int8"], "store=int8: must be one of float32, float16"),
        (["targets=[gap]", "train.stepps=1"], "pretrain predictor: .*stepps"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], words: str, data: None, vae_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        pretrain_predictor([f"vae={vae_folder}", f"save_path={tmp_path / 'out'}", *options])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("unit", [1e39, 1e-50, 1e300])
def test_a_unit_may_be_any(unit: float) -> None:
    """Standardised in float64: numbers that float32 cannot hold teach the same."""
    vae, config = small_vae(), PredictorConfig(dropout=0.0)
    losses, scaled = [], []
    for scale in (1.0, unit):
        crystals = replace(measured(), properties={"gap": GAPS * scale})
        torch.manual_seed(0)
        head = PropertyHead(config.inputs(vae.config), ("gap",), config)
        standardize(head, crystals)
        module = PretrainPredictor(head, config, PretrainConfig(), vae)
        loss = module.losses(module.network, augmented(crystals, seed=0, step=0), "train")["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        judged = predictions(CrystalPredictor(vae, head, config), crystals, seed=0)[0].summary()
        scaled.append([judged[name] / scale for name in ("mae", "mae_of_the_mean", "mean", "std")])
        assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert scaled[1] == pytest.approx(scaled[0], rel=1e-5)


def test_a_column_of_texts_is_shown() -> None:
    why = "8 of its 8 values are not finite numbers: row 1 ('1.0 eV') and 7 more"
    crystals = replace(packed(), refused={"gap": why})
    assert crystals.select(np.arange(2)).refused == {"gap": why}
    with pytest.raises(
        UserError, match=r"a column 'gap' that is not a property, since 8 of its 8 .* row 1 \('1\.0 eV'\)"
    ):
        with_properties(crystals, {"gap": "gap"}, "training")


def test_nothing_to_learn() -> None:
    empty = replace(packed(), properties={"gap": np.full(8, np.nan)})
    with pytest.raises(UserError, match="validation crystals have a column 'gap' without a number"):
        with_properties(empty, {"gap": "gap"}, "validation")
    flat = replace(packed(), properties={"gap": np.full(8, 2.5)})
    with pytest.raises(UserError, match=r"all training crystals have the same gap, 2\.5: nothing to learn"):
        standardize(PropertyHead(24, ("gap",), PredictorConfig()), flat)


def test_the_hidden_widths_can_be_set(data: None, vae_folder: Path, tmp_path: Path) -> None:
    shape = ["model.hidden=[7, 5]", "model.features=false", "model.pooling=sum", "model.dropout=0"]
    options = [*SMALL, *shape, "targets=[band_gap:gap]", f"vae={vae_folder}", f"save_path={tmp_path}", "train.steps=1"]
    loaded = load_predictor(pretrain_predictor([*options, "val_every=1"]))
    assert loaded.config == PredictorConfig(pooling="sum", features=False, hidden=(7, 5), dropout=0.0)
    assert loaded.targets == ("band_gap",)
