"""Pre-training of the crystal backbone: it learns, resumes as if uninterrupted, and counts what it gives back."""

import json
import re
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import small_crystal_set
import torch
from small_crystal_set import CRYSTALS, packed
from small_pretraining import SMALL

from atomrl.checkpoints.crystal import load_crystal_backbone
from atomrl.checkpoints.vae import load_vae, save_vae
from atomrl.cli import main
from atomrl.data.crystal_batches import CrystalBatch, SizedCrystalBatches, augment
from atomrl.evaluation.reconstruction import match_rate, mismatches, structures_of_batch
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig, LossWeights
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal import encode
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.crystal_run import FRAMES, pretrain_ldm, pretrain_vae
from atomrl.pretraining.ldm import PretrainLDM
from atomrl.pretraining.vae import PretrainVAE
from atomrl.util.errors import UserError

TINY_VAE = CrystalVAEConfig(width=16, heads=2, feedforward=32, layers=1, latent=4)
VAE = [f"model.{name}={getattr(TINY_VAE, name)}" for name in ("width", "heads", "feedforward", "layers", "latent")]
LDM = ["model.hidden=16", "model.depth=1", "model.heads=2", "model.latent=4"]


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_crystal_set.write(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    save_vae(folder, CrystalVAE(TINY_VAE), {})
    return folder


def logged(folder: Path) -> set[str]:
    """Names of the columns of all sessions' logs."""
    return {name for path in folder.glob("log/*/metrics.csv") for name in path.read_text().splitlines()[0].split(",")}


def test_a_resumed_vae_equals_an_uninterrupted_one(crystals: Path, tmp_path: Path) -> None:
    def run(name: str, steps: int) -> dict[str, torch.Tensor]:
        options = [*SMALL, *VAE, f"data={crystals}", f"save_path={tmp_path / name}", f"train.steps={steps}"]
        return load_vae(pretrain_vae(options)).state_dict()

    first = run("cut", 2)
    resumed, straight = run("cut", 5), run("straight", 5)
    assert all(torch.equal(value, straight[name]) for name, value in resumed.items())
    assert not all(torch.equal(value, straight[name]) for name, value in first.items())
    terms = {"types", "lengths", "angles", "frac_coords", "kl", "loss"}
    assert logged(tmp_path / "straight") >= terms | {f"val_{name}" for name in terms} | {"val_match_rate"}
    card = json.loads((tmp_path / "cut" / "model.json").read_text())
    assert card["training"]["steps"] == 5
    assert card["reconstruction"]["structures"] == small_crystal_set.VALIDATION


@pytest.mark.usefixtures("ctrl_c")
def test_a_denoiser_stopped_by_ctrl_c_equals_an_uninterrupted_one(
    crystals: Path,
    vae_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut, honest = tmp_path / "cut", PretrainLDM.losses

    def words(folder: Path, *more: str) -> list[str]:
        return [*SMALL, *LDM, f"vae={vae_folder}", f"data={crystals}", f"save_path={folder}", "train.steps=5", *more]

    def stopped(self: PretrainLDM, network: DiT, batch: CrystalBatch, purpose: str) -> dict[str, torch.Tensor]:
        if (purpose, batch.step) == ("train", 1):
            signal.raise_signal(signal.SIGINT)
        return honest(self, network, batch, purpose)

    with monkeypatch.context() as patched:
        patched.setattr(PretrainLDM, "losses", stopped)
        with pytest.raises(SystemExit) as ended:
            main(["pretrain", "ldm", *words(cut)])
    assert ended.value.code == 130
    assert capsys.readouterr().out.splitlines() == ["", f"stopped; continue with the same command: save_path={cut}"]
    assert torch.load(cut / "last.ckpt", weights_only=True)["global_step"] == 2
    assert {path.name for path in cut.iterdir()} == {"last.ckpt", "log"}

    folders = pretrain_ldm(words(cut, "checkpoint_minutes=1e-9")), pretrain_ldm(words(tmp_path / "straight"))
    resumed, straight = (load_crystal_backbone(folder) for folder in folders)
    assert resumed.sizes == {2: 4, 5: 2}
    assert resumed.latent_std == straight.latent_std > 0
    vae = load_vae(vae_folder).state_dict()
    assert all(torch.equal(value, vae[name]) for name, value in resumed.vae.state_dict().items())
    expected = straight.denoiser.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.denoiser.state_dict().items())
    assert [path.name for path in cut.glob("*.ckpt")] == ["last.ckpt"]  # not a second one, which nothing reads
    assert logged(folders[1]) >= {"mse", "vb", "loss", "val_mse", "val_vb", "val_loss"}


def test_the_folder_of_another_run_is_left_as_it_is(crystals: Path, vae_folder: Path, tmp_path: Path) -> None:
    """Its weights under a card with the new words would be a lie."""
    folder, other_vae = tmp_path / "run", tmp_path / "vae"
    torch.manual_seed(1)
    save_vae(other_vae, CrystalVAE(TINY_VAE), {})
    began = {"vae": vae_folder, "data": crystals, "save_path": folder, "train.steps": 1, "frame": "random"}

    def run(**changed: object) -> Path:
        options = began | {name.replace("__", "."): value for name, value in changed.items()}
        return pretrain_ldm([*SMALL, *LDM, *(f"{key}={value}" for key, value in options.items())])

    run()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    copied = small_crystal_set.write(tmp_path / "set")
    for changed, words in (
        ({"data": copied}, f"began with data={crystals}, not data={copied}; give the options that the run in"),
        ({"frame": "first_atom"}, "began with frame=random, not frame=first_atom"),
        ({"train__seed": 5}, "began with train.seed=0, not train.seed=5"),
        ({"vae": other_vae}, "was trained on another VAE"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            run(**changed)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    moved = tmp_path / "moved"
    vae_folder.rename(moved)
    try:
        run(vae=moved, train__steps=2)  # the same VAE in another place
        with pytest.raises(UserError, match=r"was trained on another VAE; init takes the last\.ckpt"):
            run(vae=other_vae, save_path=tmp_path / "from", init=folder / "last.ckpt", train__steps=3)
        run(data=copied, vae=moved, save_path=tmp_path / "from", init=folder / "last.ckpt", train__steps=3)
    finally:
        moved.rename(vae_folder)


def test_a_loss_that_is_not_finite_ends_a_pre_training_before_the_weights_take_it_in(
    crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, honest = tmp_path / "run", PretrainVAE.losses

    def broken(self: PretrainVAE, network: CrystalVAE, batch: CrystalBatch, purpose: str) -> dict[str, torch.Tensor]:
        terms = honest(self, network, batch, purpose)
        return {**terms, "loss": terms["loss"] * torch.nan} if (purpose, batch.step) == ("train", 2) else terms

    monkeypatch.setattr(PretrainVAE, "losses", broken)
    options = [*SMALL, *VAE, f"data={crystals}", f"save_path={folder}", "train.steps=5", "checkpoint_minutes=1e-9"]
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "vae", *options])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"step 2: the loss is not finite \(.*loss nan\): lower train\.lr=.* starts anew if there is none$", line
    )
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_weights_stored_in_half_size_load_as_float32(crystals: Path, tmp_path: Path) -> None:
    options = [*SMALL, *VAE, f"data={crystals}", "train.steps=1", "val_every=1"]
    whole, half = (pretrain_vae([*options, f"save_path={tmp_path / t}", f"store={t}"]) for t in ("float32", "float16"))
    assert (half / "model.safetensors").stat().st_size < 0.7 * (whole / "model.safetensors").stat().st_size
    exact = load_vae(whole).state_dict()
    for name, value in load_vae(half).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, exact[name].half().float())


def overfit(module: PretrainVAE | PretrainLDM, batch: CrystalBatch, steps: int) -> tuple[float, float]:
    """Mean loss of the first and the last ten steps on one batch, with new noise in each."""
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        loss = module.losses(module.network, replace(batch, step=step), "train")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[:10]) / 10, sum(losses[-10:]) / 10


def test_losses_fall_on_four_crystals() -> None:
    torch.manual_seed(0)
    batch = next(iter(SizedCrystalBatches(packed(CRYSTALS[:4]), 4, seed=0)))
    wide = CrystalVAEConfig(width=32, heads=2, feedforward=64, layers=1, latent=4)
    vae = PretrainVAE(wide, PretrainConfig(), LossWeights())
    first, last = overfit(vae, batch, 80)
    assert last < 0.3 * first
    latent_std = float(vae.network.encode(batch.crystals).mean[batch.mask > 0].detach().std())
    denoiser = PretrainLDM(DiTConfig(latent=4, hidden=32, depth=1, heads=2), PretrainConfig(), vae.network, latent_std)
    first, last = overfit(denoiser, batch, 80)
    assert last < 0.5 * first


def test_losses_of_validation_are_the_same_each_time_and_training_ones_change_with_the_step() -> None:
    batches = list(islice(SizedCrystalBatches(packed(), 4, seed=0), 2))
    module = PretrainVAE(TINY_VAE, PretrainConfig(), LossWeights(kl=1.0))
    with torch.no_grad():
        module.network.quant_conv.weight.mul_(3)

    def loss(step: int, purpose: str) -> float:
        return float(module.losses(module.network, CrystalBatch(batches[0].crystals, step), purpose)["loss"].detach())

    assert loss(0, "validation") == loss(0, "validation")
    assert len({loss(0, "validation"), loss(0, "train"), loss(1, "train")}) == 3


def test_the_denoiser_learns_scaled_means_and_leaves_the_vae_alone() -> None:
    batch = next(iter(SizedCrystalBatches(packed(), 4, seed=0)))
    vae = CrystalVAE(TINY_VAE)
    module = PretrainLDM(DiTConfig(latent=4, hidden=16, depth=1, heads=2), PretrainConfig(), vae, 0.25)
    assert torch.allclose(encode(vae, batch.crystals, 0.25), 4 * vae.encode(batch.crystals).mean)
    module.losses(module.network, batch, "train")["loss"].backward()
    assert all(parameter.grad is None for parameter in vae.parameters())
    trained = {
        parameter for group in module.configure_optimizers()["optimizer"].param_groups for parameter in group["params"]
    }
    assert trained == set(module.network.parameters())
    assert module.state_dict()["latent_std"] == 0.25  # a continued run keeps it


def test_in_a_fixed_frame_augmentation_changes_nothing() -> None:
    batch = next(iter(SizedCrystalBatches(packed(), 4, seed=0)))
    moved = replace(batch, crystals=augment(batch.crystals, seed=9, step=9))
    shape, vae = DiTConfig(latent=4, hidden=16, depth=1, heads=2), CrystalVAE(TINY_VAE)
    losses = {}
    for frame, describe in FRAMES.items():
        torch.manual_seed(0)
        module = PretrainLDM(shape, PretrainConfig(), vae, 0.25, describe)
        torch.nn.init.normal_(module.network.final_layer.linear.weight)
        with torch.no_grad():
            losses[frame] = [float(module.losses(module.network, each, "train")["loss"]) for each in (batch, moved)]
    assert losses["first_atom"][0] == pytest.approx(losses["first_atom"][1], rel=1e-4)
    assert losses["random"][0] != pytest.approx(losses["random"][1], rel=1e-3)


def test_a_perfect_reconstruction_matches_and_a_broken_one_does_not() -> None:
    batch = packed().padded()
    original = structures_of_batch(batch)
    assert mismatches(original, original) == [None] * len(CRYSTALS)

    numbers = original.numbers.clone()
    numbers[0, 0] = 11 if numbers[0, 0] != 11 else 19
    cell = original.cell.clone()
    cell[1] = torch.nan
    positions = original.positions.clone()
    positions[2, 1] = positions[2, 0] + 0.1
    scale = torch.ones(len(CRYSTALS), 1, 3)
    scale[5, 0, 2] = 1.7  # along z: another shape
    broken = replace(original, numbers=numbers, positions=positions * scale, cell=cell * scale)
    assert mismatches(original, broken) == ["composition", "nan", "overlap", None, None, "structure", None, None]


def test_the_match_rate_is_the_share_that_a_vae_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = packed().padded()
    perfect = structures_of_batch(batch)
    vae = CrystalVAE(TINY_VAE)
    assert match_rate(vae, batch) == 0.0  # untrained
    monkeypatch.setattr(CrystalVAE, "reconstruct", lambda *_: perfect)
    assert match_rate(vae, batch) == 1.0
    halved = replace(perfect, cell=torch.where(torch.arange(8)[:, None, None] < 4, perfect.cell, torch.nan))
    monkeypatch.setattr(CrystalVAE, "reconstruct", lambda *_: halved)
    assert match_rate(vae, batch) == 0.5


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        (pretrain_vae, ["train.stepps=3"], "pretrain vae: .*stepps"),
        (pretrain_ldm, ["model.layout=rows"], "pretrain ldm: model.layout=rows: must be one of channels, published"),
        (pretrain_vae, ["model.width=30", "model.heads=4"], "model.width=30 with model.heads=4"),
        (pretrain_vae, ["model.elements=50", "data=SET"], "hold the element 56.* model.elements=57"),
        (pretrain_vae, ["store=int8"], "store=int8: must be one of float32, float16"),
        (pretrain_vae, ["data=/nowhere"], "no crystals in /nowhere"),
        (pretrain_ldm, ["data=SET", "vae=/nowhere"], "no backbone at /nowhere"),
        (pretrain_ldm, ["data=SET", "vae=VAE"], "4 latent channels, the denoiser 8: set model.latent=4"),
        (pretrain_vae, ["data=SET", "train.batch_size=7", "save_path=OUT"], "batches of 7 out of 6"),
    ],
)
def test_options_that_cannot_be_are_refused(
    command, options: list[str], words: str, crystals: Path, vae_folder: Path, tmp_path: Path
) -> None:
    places = {"SET": crystals, "VAE": vae_folder, "OUT": tmp_path}
    for word, place in places.items():
        options = [option.replace(f"={word}", f"={place}") for option in options]
    with pytest.raises(UserError, match=words):
        command(options)
