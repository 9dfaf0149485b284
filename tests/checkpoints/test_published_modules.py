"""`load_from_checkpoint` by the published names of code: of published files and of folders, and nothing runs."""

import logging
from pathlib import Path

import pytest
import torch
from crystal_models import golden_ldm, golden_vae
from published_crystals import ldm_parameters, ldm_weights, predictor, predictor_file, vae_file, write

from atomrl.cli import main
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.util.errors import UserError
from src.ldm_module.denoisers.dit import DiT
from src.ldm_module.ldm_module import LDMModule
from src.vae_module.decoders.transformer import TransformerDecoder
from src.vae_module.encoders.transformer import TransformerEncoder
from src.vae_module.predictor_module import PredictorModule
from src.vae_module.vae_module import VAEModule


def same(found: torch.nn.Module, expected: torch.nn.Module) -> bool:
    weights = found.state_dict()
    return all(torch.equal(weights[name], tensor) for name, tensor in expected.state_dict().items())


def test_files_and_folders_are_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vae, model = golden_vae().vae, predictor()
    files = {
        "vae": vae_file(tmp_path / "vae.ckpt", vae),
        "ldm": write(tmp_path / "ldm.ckpt", ldm_weights(vae=vae), ldm_parameters()),
        "predictor": predictor_file(tmp_path / "predictor.ckpt"),
    }
    for name, file in files.items():
        main(["import", "chemeleon2", str(file), "--output", str(tmp_path / name)])
    for where in (files, {name: tmp_path / name for name in files}):
        with caplog.at_level(logging.WARNING):
            read = VAEModule.load_from_checkpoint(where["vae"], weights_only=False)
        assert isinstance(read, CrystalVAE)
        assert same(read, vae)
        assert isinstance(read.encoder, TransformerEncoder)
        assert isinstance(read.decoder, TransformerDecoder)
        assert same(PredictorModule.load_from_checkpoint(where["predictor"], "cpu").head, model.head)
        ldm = LDMModule.load_from_checkpoint(str(where["ldm"]))
        assert isinstance(ldm.denoiser, DiT)
        assert same(ldm.denoiser, golden_ldm().denoiser)
        assert same(ldm.vae, vae)
    assert "weights_only=False is accepted, but loading stays safe" in caplog.text


def test_another_kind_is_one_line(tmp_path: Path) -> None:
    file = vae_file(tmp_path / "vae.ckpt", golden_vae().vae)
    with pytest.raises(UserError, match=r"vae.ckpt holds a VAE, not a latent diffusion model"):
        LDMModule.load_from_checkpoint(file)
    alone = write(tmp_path / "ldm.ckpt", ldm_weights(), ldm_parameters())
    assert same(LDMModule.load_from_checkpoint(alone, vae_ckpt_path=file).vae, golden_vae().vae)
