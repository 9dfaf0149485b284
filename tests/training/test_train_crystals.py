"""Crystals through the whole program: train, resume, evaluate, sample; and all four pairs of domain and objective."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from crystal_models import small_vae
from pymatgen.core import Composition
from small_crystal_set import CRYSTALS, write

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.checkpoints.stored import read_stored
from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.cli import main
from atomrl.commands import samples as commands
from atomrl.config import load_config
from atomrl.core.records import Structures
from atomrl.data.prototype_set import HULL_FILE
from atomrl.domains.crystal_panel import CrystalPanel
from atomrl.domains.crystals import CrystalDomain
from atomrl.evaluation import relaxation
from atomrl.evaluation.evaluate import SamplePlan, compare, sample
from atomrl.evaluation.kept_samples import KeptSamples, Noted
from atomrl.force_fields.chgnet import CORRECTIONS, model_id
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal import Sampling
from atomrl.sampling.sample_file import BROKEN, KEPT, WRITTEN

sys.path.insert(0, str(Path(__file__).parent))
import small_backbone

COMPONENTS = [
    "{_target_: src.rl_module.components.CreativityReward}",
    "{_target_: src.rl_module.components.EnergyReward, normalize_fn: norm}",
    "{_target_: src.rl_module.components.StructureDiversityReward, weight: 0.1, normalize_fn: norm}",
    "{_target_: src.rl_module.components.CompositionDiversityReward, normalize_fn: norm}",
]
TINY = [
    "model.time_step=6",
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=4",
    "dataloader.micro_batch_size=8",
    "dataloader.epoches=2",
    "train.objective=grpo",
    "train.step_weighting=published",
    "train.train_steps=null",
    "train.train_max_time=1.0",
    "train.scheduler=constant",
    "train.learning_rate=1e-3",
    "train.warmup_steps=0",
    "train.exploded_above=1e5",
    "evaluation.samples=0",
    "threads=1",
    "log.tensorboard=false",
]


def known_set(folder: Path) -> Path:
    """Eight crystals with a hull of invented energies on CHGNet's scale."""
    write(folder)
    elements = sorted({element.symbol for crystal in CRYSTALS for element in crystal.elements})
    entries = [HullEntry(Composition(symbol), -2.0, symbol) for symbol in elements]
    entries += [HullEntry(crystal.composition, -3.5, f"known-{row}") for row, crystal in enumerate(CRYSTALS)]
    Hull(HullKey(model_id("0.3.0"), CORRECTIONS["0.3.0"], "test"), entries).save(folder / HULL_FILE)
    return folder


def backbone(folder: Path) -> Path:
    """A random backbone whose cells are sound: lengths of 4 to 7 Å, angles near 90 degrees."""
    torch.manual_seed(0)
    vae = small_vae()
    wanted = torch.tensor([4.0, 4.0, 4.0, np.pi / 2, np.pi / 2, np.pi / 2])
    with torch.no_grad():
        vae.decoder.transformer.norm.bias.fill_(
            1.0
        )  # features of 1 +- 0.1, so that the cells are nearly the wanted ones
        vae.decoder.transformer.norm.weight.fill_(0.1)
        noise = vae.decoder.lattice_head.weight
        noise.sub_(noise.mean(1, keepdim=True)).add_(wanted[:, None] / noise.shape[1])
        vae.decoder.frac_coords_head.weight.mul_(20.0)
        types = vae.decoder.atom_types_head
        types.weight.mul_(20.0)
        types.bias.fill_(-1e3)
        types.bias[sorted({number for crystal in CRYSTALS for number in crystal.atomic_numbers})] = 0.0
    denoiser = DiT(DiTConfig(hidden=16, depth=1, heads=2))
    save_crystal_backbone(folder, CrystalBackbone(vae, denoiser, 1.0, {1: 1, 2: 3}), {})
    return folder


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return [
        f"model.backbone={backbone(tmp_path / 'backbone')}",
        f"reward.reference_dataset={known_set(tmp_path / 'known')}",
    ]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_train_resume_and_evaluate(tmp_path, places, capsys):
    run, cut = tmp_path / "whole", tmp_path / "cut"
    options = [*TINY, *places, f"reward.components=[{','.join(COMPONENTS)}]", "reward.workers=1"]
    train = ["train", "experiment=prototypes/rl_dng_grpo", *options]
    main([*train, f"save_path={run}", "evaluation.samples=6"])
    main([*train, f"save_path={cut}", "dataloader.epoches=1"])
    main([*train, f"save_path={cut}", "resume=true"])
    for one, other in zip(lines(run), lines(cut), strict=True):
        assert {name: value for name, value in one.items() if "seconds" not in name} == {
            name: value for name, value in other.items() if "seconds" not in name
        }
    first = lines(run)[0]
    assert first["sound_cells"] > 0.5
    assert abs(first["e_above_hull"]) < 10
    assert {"raw_creativity", "effective_elements", "grad_norm"} <= first.keys()
    table = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert table["profile"] == "mp20-2025"
    assert table["metrics"]["unique"]["columns"]["trained"]["denominator"] == 6
    assert (run / "evaluation" / "trained.cif").stat().st_size > 0
    capsys.readouterr()
    four = ["--num-samples", "4", "--time-step", "6", "--output", str(tmp_path / "table")]
    base = places[0].partition("=")[2]
    chosen = ["--best-of", "2", "--steer", "2", "--steer-temperature", "0", "--steer-places", "1"]
    main(["evaluate", "--base", base, "--trained", str(run), *chosen, *four, "evaluation.relaxed=1"])
    said = capsys.readouterr().out
    columns = json.loads((tmp_path / "table" / "evaluation.json").read_text())["columns"]
    costs = {label: (column["samples"], column["drawn"], column["scorings"]) for label, column in columns.items()}
    assert costs["base best of 2"] == (4, 8, 8)
    assert costs["base steered with 2 particles"] == (4, 8, 16)
    assert "base best of 2" in said
    assert "\nrelaxed:\n" in said
    assert "## relaxed" in (tmp_path / "table" / "evaluation.md").read_text()
    three = ["--num-samples", "3", "--time-step", "6", "--output", str(tmp_path / "three.cif")]
    main(["sample", "--backbone", str(run / "checkpoint_latest.pth"), *three])
    assert (tmp_path / "three.cif").read_text().count("data_0000") == 3


def test_relaxed_crystals_lie_beside_the_run(tmp_path, places):
    """Those of the last iteration, by the reward's own force field."""
    components = ["{_target_: atomrl.rewards.components.EnergyReward, relax_steps: 1}"]
    run = tmp_path / "run"
    options = [*TINY, *places, f"reward.components=[{components[0]}]", "reward.workers=1", "dataloader.epoches=1"]
    main(["train", "experiment=prototypes/rl_dng_grpo", *options, f"save_path={run}"])
    images = ase.io.read(run / "e_above_hull_relaxed_1.extxyz", index=":")
    assert len(images) == 8
    assert all(image.pbc.all() for image in images)
    assert "e_above_hull_relaxed_1" in lines(run)[0]


def test_the_best_checkpoint_follows_the_raw_number(tmp_path, places):
    """Not the normalised one, which an older run's config.yaml names; such a run goes on, by either."""
    components = f"reward.components=[{COMPONENTS[0]},{COMPONENTS[1]}]"
    train = ["train", "experiment=prototypes/rl_dng_grpo", *TINY, *places, components, "reward.workers=1"]
    run, old = tmp_path / "run", tmp_path / "old"
    main([*train, f"save_path={run}", "dataloader.epoches=4"])
    raw = [line["raw_reward"] for line in lines(run)]
    assert len(set(raw)) > 1
    for line in lines(run):
        assert line["raw_reward"] == pytest.approx(line["raw_creativity"] + line["raw_energy"])
    assert read_stored(str(run / "checkpoint_best.pth")).card["iteration"] == raw.index(max(raw))
    main([*train, f"save_path={old}", "dataloader.epoches=1", "best_checkpoint_metric=reward"])
    assert "best_checkpoint_metric: reward" in (old / "config.yaml").read_text()
    main([*train, f"save_path={old}", "dataloader.epoches=2", "best_checkpoint_metric=reward", "resume=true"])
    main([*train, f"save_path={old}", "dataloader.epoches=4", "best_checkpoint_metric=raw_reward", "resume=true"])
    assert read_stored(str(old / "checkpoint_best.pth")).card["iteration"] == 2 + (raw[3] > raw[2])


def test_a_run_samples_as_it_was_trained(tmp_path, places, monkeypatch):
    run = tmp_path / "run"
    options = [*TINY, *places, "reward.type=dummy", "dataloader.epoches=1", "model.sampler=ddim", "model.eta=0.5"]
    main(["train", "experiment=prototypes/rl_dng_grpo", *options, f"save_path={run}"])
    used: list[Sampling] = []
    monkeypatch.setattr(
        commands,
        "sample_into",
        lambda _, drawing, *__: used.append(drawing.wanted.policy.sampling) or {KEPT: 10, WRITTEN: 10, BROKEN: 0},
    )
    for model in (str(run / "checkpoint_latest.pth"), places[0].partition("=")[2]):
        main(["sample", "--backbone", model, "--output", str(tmp_path / "one.cif")])
    assert [(each.sampler, each.eta) for each in used] == [("ddim", 0.5), ("ddpm", 1.0)]


@pytest.mark.parametrize("objective", ["grpo", "fed_grpo"])
@pytest.mark.parametrize("domain", ["molecules", "crystals"])
def test_every_objective_trains_every_domain(tmp_path, domain, objective):
    """The weights move, finitely, and the first ratio is 1 (the KL to the behaviour policy starts at 0)."""
    place = tmp_path / "backbone"
    if domain == "molecules":
        options = [
            "--config-name=fed_grpo_config",
            *small_backbone.TINY,
            f"model.backbone={small_backbone.write(place)}",
        ]
    else:
        crystals = [f"model.backbone={backbone(place)}", "reward.type=dummy"]
        options = ["experiment=prototypes/rl_dng_grpo", *TINY, *crystals]
    if objective == "grpo":
        options += ["train.kl_weight=1", "train.entropy_weight=1e-5"]
    else:
        options += ["train.kl_weight=0", "train.entropy_weight=0"]
    run = tmp_path / "run"
    main(["train", *options, f"train.objective={objective}", "dataloader.epoches=2", f"save_path={run}"])
    logged = lines(run)
    assert len(logged) == 2
    assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in logged)


@pytest.mark.parametrize("domain", ["molecules", "crystals"])
def test_a_shared_prefix_and_shaped_rewards_train_every_domain(tmp_path, domain):
    """Six transitions, two of them shared, four scored: by the dummy reward, which pays an energy too."""
    place = tmp_path / "backbone"
    shared = ["model.time_step=6", "model.share_initial_noise=true", "model.skip_prefix=2"]
    shaped = ["reward.shaping.enabled=true", "reward.shaping.scheduler.skip_prefix=2", "train.objective=fed_grpo"]
    shaped += ["reward.shaping.scheduler.mode=uniform"]
    if domain == "molecules":
        options = ["--config-name=fed_grpo_config", *small_backbone.TINY]
        options += [f"model.backbone={small_backbone.write(place)}"]
    else:
        options = ["experiment=prototypes/rl_dng_grpo", *TINY, f"model.backbone={backbone(place)}", "reward.type=dummy"]
        options += ["train.kl_weight=0", "train.entropy_weight=0"]
    run = tmp_path / "run"
    main(["train", *options, *shared, *shaped, "dataloader.epoches=2", f"save_path={run}"])
    for line in lines(run):
        assert line["potentials"] == 4 * {"molecules": 6, "crystals": 8}[domain]
        assert np.isfinite(line["loss"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reward.components=[]", "reward.components is empty"),
        ("reward.components=[{weight: 1}]", "_target_"),
        (
            "reward.components=[{_target_: src.rl_module.components.EnergyReward, weight: 0}]",
            "the weight of each is 0, and nothing would be learned",
        ),
        ("reward.components=[{_target_: src.rl_module.components.NoSuchReward}]", "holds no NoSuchReward"),
        ("reward.components=[{_target_: src.rl_module.components.EnergyReward, wieght: 2}]", "wieght"),
        ("reward.reference_dataset=nowhere", "no crystals in nowhere"),
        ("reward.hull=nowhere.json", "no hull at nowhere.json"),
        ("model.sampler=euler", "ddpm"),
        ("train.num_inner_batch=100", "exceeds the 5 trained transitions"),
        ("dataloader.each_prompt_sample=1", "a group of one"),
        ("reward.use_energy=true", "unknown configuration key reward.use_energy"),
        ("model.backbone=edm_qm9_small", "not a crystal backbone"),
    ],
)
def test_mistakes(tmp_path, places, override, message, capsys):
    options = [*TINY, *places, f"reward.components=[{','.join(COMPONENTS)}]", f"save_path={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as caught:
        main(["train", "experiment=prototypes/rl_dng_grpo", *options, override])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1, error
    assert not (tmp_path / "run").exists()


def test_a_column_without_a_sound_sample_stands_beside_others(tmp_path, places):
    """Nothing measured its features or energies, and it still was judged under the same conditions."""
    domain, overrides = CrystalDomain(), [*TINY, *places, "reward.workers=1"]
    config = load_config("experiment/prototypes/rl_dng_grpo", overrides)
    model = domain.load(read_stored(config.model.backbone), config)
    drawn = sample(model, SamplePlan(4, 6, 0), torch.device("cpu"))
    crushed = Structures(drawn.numbers, drawn.positions * 0.01, drawn.mask, drawn.cell * 0.01)
    with domain.panel(config, model) as panel:
        known = panel.known_samples(3, seed=1)
        judged = {"base": panel.judge(drawn), "crushed": panel.judge(crushed)}
        judged["known set"] = replace(panel.judge(known), drawn=0)
        report = compare(judged, set(), panel, SamplePlan(4, 6, 0), "command", tmp_path / "table")
    assert report.main.estimate(report.main.columns[1], "unique").value == 0
    assert report.main.estimate(report.main.columns[2], "novel").value == 0
    assert report.main.estimate(report.main.columns[2], "structure_validity").value == 1
    assert "known set: 3 taken from the set, not drawn from a model, " in report.markdown()


def test_relaxed_samples_are_kept_for_other_evaluations(tmp_path, places, monkeypatch):
    """Also what an evaluation had relaxed before it was stopped; the relaxation itself is tested elsewhere."""
    domain = CrystalDomain()
    config = load_config(
        "experiment/prototypes/rl_dng_grpo", [*TINY, *places, "reward.workers=1", "evaluation.relaxed=3"]
    )
    model = domain.load(read_stored(config.model.backbone), config)
    drawn = sample(model, plan := SamplePlan(4, 6, 0), torch.device("cpu"))
    lots: list[int] = []

    def grown(self, structures: Structures) -> Noted:
        lots.append(len(structures))
        if lots == [2, 1]:
            raise KeyboardInterrupt
        notes = (None, "unconverged") if len(structures) == 2 else ("timeout" if len(lots) == 3 else None,)
        return replace(structures, positions=structures.positions * 1.1, cell=structures.cell * 1.1), notes

    monkeypatch.setattr(relaxation, "RELAXED_AT_ONCE", 2)
    monkeypatch.setattr(CrystalPanel, "_relax", grown)
    shared = tmp_path / "shared"

    def judged(name: str) -> str:
        kept = KeptSamples(tmp_path / name, shared=shared)
        with domain.panel(config, model) as panel, kept.until_written("again"):
            report = compare({"base": panel.judge(drawn, kept)}, set(), panel, plan, "command", tmp_path / name)
        return report.markdown()

    with pytest.raises(KeyboardInterrupt):
        judged("stopped")
    lost = judged("lost")
    assert lots == [2, 1, 1]
    assert "relaxation unconverged 1, relaxation timeout 1" in lost
    first = judged("first")
    assert lots == [2, 1, 1, 1]  # what was lost is tried again
    assert "relaxation unconverged 1" in first
    assert judged("second") == first
    assert lots == [2, 1, 1, 1]
    assert shared.is_dir()
