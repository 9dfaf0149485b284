"""`atomrl pretrain ldm conditions=...`: it learns from them, begins as the backbone, resumes, says what it lacks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conditional_crystals import write as write_conditional
from crystal_models import randomized, small_vae
from small_crystal_set import CRYSTALS, packed
from small_pretraining import SMALL

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone, save_crystal_backbone
from atomrl.data.crystal_batches import CrystalBatch, SizedCrystalBatches
from atomrl.diffusion.gaussian import training_loss
from atomrl.networks.conditional_dit import ConditionalDiT
from atomrl.networks.conditions import Condition
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.crystal_run import pretrain_ldm
from atomrl.pretraining.ldm import PretrainLDM
from atomrl.util.errors import UserError

SHAPE = DiTConfig(hidden=16, depth=1, heads=2)
GAP, FORMULA = Condition(name="gap", kind="value", mean=2.0, std=2.0), Condition(name="formula", kind="composition")
ASKED = (
    "conditions=[{name: gap, kind: value, column: band_gap}, {name: group, kind: category}, "
    "{name: formula, kind: composition}, {name: system, kind: chemical_system}]"
)
CIF = (
    "data_a\n_cell_length_a {a}\n_cell_length_b {a}\n_cell_length_c {a}\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
    "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n_atom_site_type_symbol\n_atom_site_label\n"
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n{one} {one}1 0 0 0\n{other} {other}2 0.5 0.5 0.5\n"
)
ROWS = [("Cs", "Cl", 4.1, "1.5", "halide"), ("Cs", "Br", 4.3, "", "halide"), ("Ni", "Al", 2.9, "0", "metal")]
ROWS += [("Fe", "Al", 2.9, "0", "metal"), ("Cs", "I", 4.6, "4", "N/A"), ("Cu", "Zn", 2.95, "0", "metal")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six crystals, of which one has no gap and one no group."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["material_id,cif,band_gap,group"]
    for row, (one, other, a, gap, group) in enumerate(ROWS):
        lines.append(f'm{row},"{CIF.format(a=a, one=one, other=other)}",{gap},{group}')
    for name in ("train.csv", "val.csv"):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unconditional backbone."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    save_crystal_backbone(
        folder, CrystalBackbone(small_vae(), randomized(DiT(SHAPE)), 0.7, {2: 1}), {"frame": "first_atom"}
    )
    return folder


def run(data: Path, folder: Path, *more: str) -> CrystalBackbone:
    options = [*SMALL, f"data={data}", f"save_path={folder}", "train.lr=1e-2", *more]
    return load_crystal_backbone(pretrain_ldm(options))


def batch() -> CrystalBatch:
    made = next(iter(SizedCrystalBatches(packed(CRYSTALS[:4]), 4, seed=0)))
    return CrystalBatch(made.crystals, 0, {"gap": torch.tensor([0.0, 1.0, torch.nan, 3.0]).double()})


def test_before_the_first_step_it_is_the_backbone() -> None:
    torch.manual_seed(0)
    denoiser, vae = randomized(DiT(SHAPE)), small_vae()
    plain, asked = (PretrainLDM(SHAPE, PretrainConfig(), vae, 0.7, conditions=c) for c in ((), (GAP, FORMULA)))
    for module in (plain, asked):
        module.start_from(denoiser, None)
    for purpose in ("train", "validation"):
        own, other = (module.losses(module.network, batch(), purpose) for module in (plain, asked))
        assert all(torch.equal(own[name], other[name]) for name in own)
        assert own["loss"] == plain.losses(denoiser, batch(), purpose)["loss"]
    assert torch.equal(asked.losses(asked.average, batch(), "train")["loss"], own_loss(plain))
    other["loss"].backward()
    last = asked.network.condition_module.proj[-1]
    assert last.weight.grad.abs().max() > 0


def own_loss(module: PretrainLDM) -> torch.Tensor:
    return module.losses(module.network, batch(), "train")["loss"]


def test_an_unknown_value_is_a_dropped_one() -> None:
    torch.manual_seed(0)
    network = ConditionalDiT(SHAPE, [GAP, FORMULA], drop_prob=0.3)
    randomized(network.condition_module)
    context = torch.rand(3, 101).double()
    context[1, 0] = torch.nan
    embedded = network.condition_module.training_embedding(context, torch.tensor([0.9, 0.9, 0.2]))
    null = network.condition_module.guidance_embedding(context[:1])[1]
    torch.testing.assert_close(embedded[1:], null.expand(2, -1))
    assert (embedded[0] - null).abs().max() > 1e-3


def test_the_denoiser_learns_to_heed_its_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a noisy crystal hardly shows which one it is, what is noise in it is told better by who knows that."""
    torch.manual_seed(0)
    known = CrystalBatch(batch().crystals, 0, {"gap": torch.arange(4.0).double()})
    kinds = torch.randn(4, 1, 8) * known.mask[..., None]

    def late_loss(predict, clean, mask, steps, noise):
        return training_loss(predict, clean, mask, torch.full_like(steps, 600), noise)

    monkeypatch.setattr("atomrl.pretraining.ldm.encode", lambda *_: kinds)
    monkeypatch.setattr("atomrl.pretraining.ldm.training_loss", late_loss)
    shape = DiTConfig(hidden=32, depth=1, heads=2)
    module = PretrainLDM(shape, PretrainConfig(), small_vae(), 1.0, conditions=(GAP,))
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=5e-3)
    for step in range(300):
        loss = module.losses(module.network, CrystalBatch(known.crystals, step, known.properties), "train")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        true, wrong = (
            np.mean(
                [
                    float(module.losses(module.network, CrystalBatch(known.crystals, step, {"gap": gaps}), "x")["mse"])
                    for step in range(30)
                ]
            )
            for gaps in (known.properties["gap"], known.properties["gap"].flip(0))
        )
    assert true < 0.9 * wrong


def test_a_conditional_backbone_out_of_a_plain_one(data: Path, plain: Path, tmp_path: Path, capsys) -> None:
    cut = [f"backbone={plain}", ASKED, "drop_prob=0.3"]
    first = run(data, tmp_path / "cut", *cut, "train.steps=2")
    words = capsys.readouterr().out
    assert "gap: 5 of 6 training crystals have it" in words
    assert "group: 5 of 6 training crystals are of one of 2 classes" in words
    resumed, straight = (run(data, tmp_path / name, *cut, "train.steps=4") for name in ("cut", "straight"))
    for name in ("denoiser", "conditions"):
        own, other = getattr(resumed, name).state_dict(), getattr(straight, name).state_dict()
        assert all(torch.equal(value, other[key]) for key, value in own.items())
        began = getattr(first, name).state_dict()
        assert not all(torch.equal(value, began[key]) for key, value in own.items())
    gap, group, formula, system = straight.conditions.conditions
    assert (gap.mean, gap.std) == pytest.approx((1.1, np.std([1.5, 0, 0, 4, 0])))
    assert group.classes == ("halide", "metal")
    assert (formula.kind, system.kind) == ("composition", "chemical_system")
    assert straight.conditions.drop_prob == 0.3
    assert straight.latent_std == pytest.approx(0.7)
    assert straight.sizes == {2: 4}  # those that have all conditions
    card = json.loads((tmp_path / "straight" / "model.json").read_text())
    assert (card["frame"], card["started_from"]) == ("first_atom", str(plain))
    assert card["known_crystals"]["formulas"].split() == ["Cl1Cs1", "Al1Ni1", "Al1Fe1", "Cu1Zn1"]
    with pytest.raises(UserError, match=r"began with drop_prob=0\.3, not drop_prob=0\.5"):
        run(data, tmp_path / "cut", f"backbone={plain}", ASKED, "drop_prob=0.5", "train.steps=5")
    with pytest.raises(UserError, match=r"is conditional: set conditions=\[\{name: gap, kind: value\}, \{name: group"):
        run(data, tmp_path / "other", f"backbone={tmp_path / 'cut'}", "train.steps=5")
    again = run(data, tmp_path / "other", f"backbone={tmp_path / 'cut'}", ASKED, "train.steps=1", "train.lr=1e-9")
    assert again.conditions.conditions == resumed.conditions.conditions
    torch.testing.assert_close(again.conditions.state_dict(), resumed.conditions.state_dict())


def test_a_run_does_not_go_on_with_other_classes(data: Path, plain: Path, tmp_path: Path) -> None:
    """Of halide and metal the metals are number 1, of metal and salt number 0, and the weights would not tell."""
    own = Path(shutil.copytree(data, tmp_path / "data"))
    words = [f"backbone={plain}", "conditions=[{name: group, kind: category}]"]
    run(own, tmp_path / "run", *words, "train.steps=1")
    for name, message in (
        ("halogenide", "other values of group in the training crystals: their"),
        ("salt", "values of the"),
    ):
        for file in ("train.csv", "val.csv"):
            (own / file).write_text((data / file).read_text().replace("halide", name))
        with pytest.raises(UserError, match=rf"last\.ckpt began with {message}"):
            run(own, tmp_path / "run", *words, "train.steps=2")
    with pytest.raises(UserError, match=r"began with other values of group .* are others here; .* by backbone"):
        run(own, tmp_path / "new", *words, f"init={tmp_path / 'run' / 'last.ckpt'}", "train.steps=2")


def test_without_conditions_a_backbone_is_trained_further(data: Path, plain: Path, tmp_path: Path) -> None:
    found = run(data, tmp_path / "run", f"backbone={plain}", "train.steps=1", "train.lr=1e-9")
    torch.testing.assert_close(found.denoiser.state_dict(), load_crystal_backbone(plain).denoiser.state_dict())
    assert found.conditioning is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["conditions=[{name: gap, kind: colour}]"],
            r"conditions: kind=colour: must be one of value, category, composition, chemical_system; e\.g\. \[\{name",
        ),
        (["conditions=[{name: gap}]"], "conditions: kind: must be given"),
        (["conditions=[{name: gap, kind: value}]"], "no property 'gap', they have band_gap: add a column"),
        (["conditions=[{name: group, kind: value}]"], "a column 'group' that is not a property"),
        (["conditions=[{name: kind, kind: category}]"], "no column 'kind', they have band_gap, group: name another"),
        (["conditions=[{name: a.b, kind: composition}]"], "torch refuses these as names"),
        (["conditions=[{name: a, kind: composition}, {name: a, kind: chemical_system}]"], "names that differ"),
        (["backbone=PLAIN", "vae=somewhere"], "has its own VAE and shape: leave vae out"),
        (["conditions=formula"], r"must be a list, e\.g\. \[\{name"),
        (["conditions=[formula]"], r"conditions\.0=formula: must be keys with values"),
        (["conditions=[{name: gap, sort: value}]"], "unknown configuration key sort"),
        (["backbone=PLAIN", "model.hidden=30"], "has its own VAE and shape: leave model out"),
        (["backbone=NOFRAME"], "does not say in which frame it learned: set frame="),
        (["backbone=edm_qm9_small"], "is not a crystal backbone"),
        (["drop_prob=1"], "must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be(options: list[str], words: str, data: Path, plain: Path, tmp_path: Path) -> None:
    if options == ["backbone=NOFRAME"]:
        save_crystal_backbone(tmp_path / "no", load_crystal_backbone(plain), {})
    if not any(option.startswith(("backbone", "drop")) for option in options):
        options = [*options, f"backbone={plain}"]
    places = {"PLAIN": plain, "NOFRAME": tmp_path / "no"}
    for word, place in places.items():
        options = [option.replace(word, str(place)) for option in options]
    with pytest.raises(UserError, match=words):
        run(data, tmp_path / "run", *options, "train.steps=1")


def test_another_models_conditions_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is conditional: set conditions="):
        run(data, tmp_path / "run", f"backbone={write_conditional(tmp_path / 'net')}", "conditions=[]")
