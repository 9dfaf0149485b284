"""Published crystal checkpoints: the imported networks give the golden answers, and nothing in a file runs."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crystal_models import golden_ldm, golden_vae, small_vae
from golden import error
from omegaconf import OmegaConf
from published_crystals import (
    CONDITION,
    DIFFUSION,
    STD,
    Adapted,
    Encoder,
    ldm_parameters,
    ldm_weights,
    predictor,
    predictor_file,
    trained,
    vae_file,
    with_adapters,
    write,
)

from atomrl.checkpoints.crystal import load_crystal_backbone
from atomrl.checkpoints.lightning_file import Storage, StoredTensor
from atomrl.checkpoints.predictor import load_predictor
from atomrl.checkpoints.vae import load_vae
from atomrl.cli import main
from atomrl.core.records import Structures
from atomrl.networks.conditions import guide
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig

EXACT_VAE, EXACT_LDM = 1e-5, 1e-6


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imported(path: Path, *words: str) -> None:
    main(["import", "chemeleon2", str(path), "--output", "out", *words])


@pytest.mark.parametrize("objects", [True, False])
def test_an_imported_vae_gives_the_golden_answers(objects: bool, capsys: pytest.CaptureFixture[str]) -> None:
    golden = golden_vae()
    imported(vae_file(Path("vae.ckpt"), golden.vae, objects))
    assert capsys.readouterr().out == "crystal VAE, 32 features, 2 layers -> out\n"
    vae = load_vae("out")
    assert vae.config == golden.vae.config
    with torch.no_grad():
        latents = vae.encode(golden.batch).mean
        decoded = vae.decode(golden.padded(golden.expected["z"]), golden.mask)
    assert error(latents[golden.mask], golden.expected["z"]) < EXACT_VAE
    assert error(decoded.type_logits[golden.mask], golden.expected["dec_atom_types"]) < EXACT_VAE
    assert error(decoded.lengths, golden.expected["dec_lengths"]) < EXACT_VAE


def test_an_imported_denoiser_gives_the_golden_answers(capsys: pytest.CaptureFixture[str]) -> None:
    golden, vae = golden_ldm(), golden_vae().vae
    imported(write(Path("ldm.ckpt"), ldm_weights(golden, vae), ldm_parameters()))
    assert "48 features, 2 blocks, conditioned on band_gap; sizes as in MP-20" in capsys.readouterr().out
    backbone = load_crystal_backbone("out")
    assert backbone.latent_std == pytest.approx(STD)
    assert backbone.denoiser.config == golden.denoiser.config
    assert backbone.conditions is not None
    assert backbone.conditions.drop_prob == 0.2
    assert backbone.sizes[4] == 4144
    assert sum(backbone.sizes.values()) == 27_136  # MP-20's training split
    case = golden.expected
    with torch.no_grad():
        plain = backbone.denoiser(case["z"], case["t"], golden.mask)
        embedded = backbone.conditions.guidance_embedding(case["band_gap"][:, None])
        conditioned = backbone.denoiser(case["z"], case["t"], golden.mask, case["y_cfg"][:3])
        twice = (torch.cat([each] * 2) for each in (case["z"], case["t"], golden.mask))
        guided = torch.cat([guide(backbone.denoiser(*twice, embedded), 2.0)] * 2)
    for found, name in ((plain, "out"), (conditioned, "out_y"), (guided, "out_cfg")):
        assert error(torch.cat(found.chunk(2, dim=-1), dim=1), case[name]) < EXACT_LDM
    assert error(embedded, case["y_cfg"]) < EXACT_LDM
    for name, tensor in vae.state_dict().items():
        assert torch.equal(backbone.vae.state_dict()[name], tensor)


@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_vae_outside_of_the_file_is_given(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    vae = golden_vae().vae
    path = write(Path("ldm.ckpt"), ldm_weights(), ldm_parameters())
    refused(path, "only the name of its file, ckpts/mp_20/vae/dng_m4owq4i5_v0.ckpt: give --vae", capsys)
    where = vae_file(Path("vae.ckpt"), vae)
    if given == "folder":
        main(["import", "chemeleon2", str(where), "--output", "vae"])
        where = Path("vae")
    Path("sizes.json").write_text('{"2": 3, "5": 1}')
    imported(path, "--vae", str(where), "--sizes", "sizes.json")
    backbone = load_crystal_backbone("out")
    assert backbone.sizes == {2: 3, 5: 1}
    for name, tensor in vae.state_dict().items():
        assert torch.equal(backbone.vae.state_dict()[name], tensor)


def test_a_tuned_model_is_read_as_its_ldm(capsys: pytest.CaptureFixture[str]) -> None:
    """Its VAE stands there twice, and networks of its reward beside it."""
    golden, vae = golden_ldm(), golden_vae().vae
    state = {f"ldm.{name}": value for name, value in ldm_weights(golden, vae).items() if "condition" not in name}
    state |= {f"vae.{name}": value for name, value in vae.state_dict().items()}
    state |= {"reward_fn.components.0.predictor.mlp.0.weight": torch.ones(2, 2)}
    parameters = trained(rl_configs={"clip_ratio": 1e-3}, denoiser={"num_heads": 4}, vae={"nhead": 4})
    path = write(Path("rl.ckpt"), state, parameters, callbacks={"EMA{'decay': 0.9999}": {"average": torch.ones(3)}})
    imported(path)
    said = capsys.readouterr().out
    assert "left out: the reward's 1 tensors; not read: the average of the callback EMA" in said
    main(["sample", "--backbone", "out", "--num-samples", "3", "--time-step", "2", "--output", "three.extxyz"])
    assert Path("three.extxyz").read_text().count("Lattice=") == 3
    backbone = load_crystal_backbone("out")
    assert backbone.conditions is None
    case = golden.expected
    with torch.no_grad():
        plain = backbone.denoiser(case["z"], case["t"], golden.mask)
    assert error(torch.cat(plain.chunk(2, dim=-1), dim=1), case["out"]) < EXACT_LDM
    state["vae.quant_conv.weight"] = state["vae.quant_conv.weight"] + 1
    path = write(Path("rl.ckpt"), state, parameters)
    refused(path, "vae.quant_conv.weight are the same part of the model and have different weights", capsys, "other")


def test_an_imported_predictor_predicts_the_same() -> None:
    golden, model = golden_vae(), predictor()
    imported(predictor_file(Path("predictor.ckpt")))
    found = load_predictor("out")
    assert found.targets == ("dft_band_gap",)
    assert found.config.widths(found.config.inputs(found.vae.config)) == (10, 20)
    batch = golden.batch
    crystals = Structures(batch.numbers, batch.frac_coords @ batch.cell, golden.mask, batch.cell)
    expected = model.predict(crystals)["dft_band_gap"]
    assert expected.std() > 0
    torch.testing.assert_close(found.predict(crystals)["dft_band_gap"], expected)


def refused(path: Path, message: str, capsys: pytest.CaptureFixture[str], output: str = "out") -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["import", "chemeleon2", str(path), "--output", output])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (Path(output) / "model.json").exists()


def test_heads_that_a_file_does_not_say_are_those_of_the_published_sizes() -> None:
    vae = CrystalVAE(CrystalVAEConfig(width=128, heads=2, feedforward=8, layers=1))
    imported(write(Path("vae.ckpt"), vae.state_dict(), {}))
    assert load_vae("out").config == vae.config


@pytest.mark.parametrize(("offset", "shape", "stride"), [(0, (2, 3), (4, 1)), (7, (1,), (1,)), (0, (2,), (-1,))])
def test_a_tensor_stays_in_its_storage(offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    numbers, storage = torch.arange(7.0), Storage("0", torch.float32)
    held = StoredTensor(storage, 1, (2, 3), (3, 1)).of(numbers)
    assert held.tolist() == [[1, 2, 3], [4, 5, 6]]
    if stride == (4, 1):
        assert StoredTensor(storage, offset, shape, stride).of(numbers).tolist() == [[0, 1, 2], [4, 5, 6]]
        offset += 1
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        StoredTensor(storage, offset, shape, stride).of(numbers)


class Harmful:
    """Pickled as a call of a harmless function that would leave a file."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            Harmful(eval, "open('harmed', 'w').close()"),
            "it asks for builtins.eval, which no published checkpoint needs",
        ),
        (Harmful(Path("harmed").touch), "it asks for builtins.getattr"),
        (Harmful(main, ["--help"]), "it asks for atomrl.cli.main"),
    ],
)
def test_a_checkpoint_with_code_is_refused_without_running(
    harm: Harmful, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(Path("ldm.ckpt"), ldm_weights(vae=golden_vae().vae), ldm_parameters(harm=harm))
    refused(path, said, capsys)
    assert not Path("harmed").exists()
    assert capsys.readouterr().out == ""


def test_an_allowed_name_is_not_called_either(capsys: pytest.CaptureFixture[str]) -> None:
    """torch.save would write `harmed`, and is a name of an allowed package."""
    parameters = ldm_parameters(harm=Harmful(torch.save, {}, "harmed"))
    imported(write(Path("ldm.ckpt"), ldm_weights(vae=golden_vae().vae), parameters))
    assert not Path("harmed").exists()
    assert "crystal backbone" in capsys.readouterr().out


def ldm(weights: dict[str, Any], **parameters: Any) -> Path:
    state = {**ldm_weights(vae=golden_vae().vae), **weights}
    return write(
        Path("ldm.ckpt"),
        {name: value for name, value in state.items() if value is not None},
        ldm_parameters(**parameters),
    )


@pytest.mark.parametrize(
    ("weights", "parameters", "message"),
    [
        ({"ema.decay": torch.ones(1)}, {}, "ldm.ckpt holds a crystal LDM and also ema.decay; known are only"),
        ({"latent_std": None}, {}, "lacks latent_std in its state_dict"),
        ({"latent_std": torch.zeros(1)}, {}, "latent_std must be one positive number, got [0.0]"),
        ({"latent_std": torch.tensor(torch.nan)}, {}, "latent_std must be one positive number, got nan"),
        (
            {"denoiser.x_embedder.bias": torch.full((48,), torch.inf)},
            {},
            "x_embedder.bias holds numbers that are not finite",
        ),
        ({"denoiser.x_embedder.weight": None}, {}, "no weight denoiser.x_embedder.weight"),
        ({"denoiser.blocks.1.attn.in_proj_bias": None}, {}, "missing ['blocks.1.attn.in_proj_bias']"),
        ({}, {"denoiser": {}}, "do not say how many heads, for denoiser of width 48"),
        ({}, {"denoiser": {"num_heads": 5}}, "a width of 48 with 5 heads"),
        ({}, {"denoiser": {"num_heads": "${heads}"}}, "say ${heads} heads, for denoiser of width 48"),
        ({}, {"denoiser": {"num_heads": 4.0}}, "say 4.0 heads, for denoiser of width 48"),
        ({}, {"diffusion_configs": {"predict_xstart": True}}, "predict_xstart=True, and only False can be imported"),
        ({}, {"condition_module": None}, "is conditional, but its hyper-parameters do not say on what"),
        (
            {},
            {"condition_module": {**CONDITION, "condition_type": {"band_gap": "text"}}},
            "condition band_gap is of the kind 'text', and only float, composition, chemical_system are known",
        ),
        ({}, {"condition_module": {**CONDITION, "stats": {}}}, "have no mean and positive std of band_gap, but None"),
    ],
)
def test_a_model_of_another_architecture_is_one_line(
    weights: dict[str, Any], parameters: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(ldm(weights, **parameters), message, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm_first": False}, "encoder.norm_first=False, and only True can be imported"),
        ({"activation": torch.nn.ReLU()}, "encoder.activation_relu_or_gelu=1, and only 2 can be imported"),
        ({"index": "none"}, "encoder.index_embedding_type='none', and only 'sinusoidal' can be imported"),
        ({"max_len": 100}, "encoder.max_len=100, and only 2048 can be imported"),
    ],
)
def test_a_network_of_another_architecture_has_weights_of_the_same_shapes(
    options: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published files hold their networks as objects, which say what the shapes do not."""
    vae = small_vae()
    refused(vae_file(Path("vae.ckpt"), vae, encoder=Encoder(vae, **options)), message, capsys)
    held = torch.nn.ModuleDict({"encoder": Encoder(vae, **options)})
    refused(predictor_file(Path("predictor.ckpt"), vae=held), message.replace("encoder", "vae", 1), capsys)


def test_another_noise_schedule_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    other = OmegaConf.create({**DIFFUSION, "noise_schedule": "squaredcos_cap_v2"})
    refused(ldm({}, diffusion_configs=other), "noise_schedule='squaredcos_cap_v2', and only 'linear' can", capsys)


ADAPTED = ("blocks.0.mlp.fc1", "blocks.1.mlp.fc2", "final_layer.linear")


@pytest.mark.parametrize("tuned", ["", "ldm."])
def test_adapters_are_merged(tuned: str) -> None:
    """W + alpha / r B A where there is one, and all else as it was."""
    state = with_adapters(ADAPTED)
    parameters = ldm_parameters(lora_configs=OmegaConf.create({"r": 2, "lora_alpha": 3, "target_modules": ["fc1"]}))
    imported(write(Path("ldm.ckpt"), {tuned + name: tensor for name, tensor in state.items()}, parameters))
    found, golden = load_crystal_backbone("out").denoiser.state_dict(), golden_ldm().denoiser.state_dict()
    for name, weight in golden.items():
        layer = name.removesuffix(".weight")
        if layer in ADAPTED and layer != name:
            up, down = (state[f"denoiser.base_model.model.{layer}.lora_{kind}.default.weight"] for kind in "BA")
            torch.testing.assert_close(found[name], weight + 1.5 * up @ down)
            assert (found[name] - weight).abs().max() > 0.01
        else:
            assert torch.equal(found[name], weight)


def test_adapters_that_were_never_used_change_nothing() -> None:
    """Those of an attention's output, as in the published experiment: torch reads the layer's weight, and B stays 0."""
    layer = "denoiser.base_model.model.blocks.0.attn.out_proj"
    state = with_adapters(("blocks.0.attn.out_proj",))
    state[f"{layer}.lora_B.default.weight"].zero_()
    denoiser = torch.nn.ModuleDict({"out_proj": Adapted()})
    denoiser.num_heads = 4
    parameters = ldm_parameters(denoiser=denoiser, lora_configs=OmegaConf.create({"r": 2, "lora_alpha": 3}))
    imported(write(Path("ldm.ckpt"), state, parameters))
    found = load_crystal_backbone("out").denoiser.state_dict()
    for name, weight in golden_ldm().denoiser.state_dict().items():
        assert torch.equal(found[name], weight)


@pytest.mark.parametrize(
    ("layers", "said", "message"),
    [
        (ADAPTED, None, "holds adapters of rank 2, and its hyper-parameters say lora_configs.r=None and lora_configs"),
        (ADAPTED, {"r": 2}, "lora_configs.lora_alpha=None: what they are multiplied by is not known; merge them first"),
        (ADAPTED, {"r": 4, "lora_alpha": 8}, "adapters of rank 2, and its hyper-parameters say lora_configs.r=4"),
        (ADAPTED, {"r": 2, "lora_alpha": 8, "use_rslora": True}, "lora_configs.use_rslora=True, and only False can be"),
        (ADAPTED, {"r": 2, "lora_alpha": 8, "alpha_pattern": {"fc1": 2}}, "lora_configs.alpha_pattern makes adapters"),
        (
            ("blocks.0.attn.out_proj",),
            {"r": 2, "lora_alpha": 8},
            "holds an adapter of blocks.0.attn.out_proj: peft up to 0.21.2 counts that of an attention's output twice",
        ),
    ],
)
def test_adapters_whose_weight_is_not_known(
    layers: tuple[str, ...], said: dict[str, Any] | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(Path("ldm.ckpt"), with_adapters(layers), ldm_parameters(lora_configs=said))
    refused(path, message, capsys)


def test_adapters_of_a_kind_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    state = with_adapters(ADAPTED)
    state["denoiser.base_model.model.blocks.0.mlp.fc1.lora_magnitude_vector.default.weight"] = torch.ones(192)
    path = write(Path("ldm.ckpt"), state, ldm_parameters(lora_configs={"r": 2, "lora_alpha": 8}))
    refused(path, "not expected ['blocks.0.mlp.fc1.lora_magnitude_vector.default.weight']", capsys)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target_conditions": None}, "do not say what it predicts, target_conditions"),
        ({"reduce": "max"}, "reduce='max', use_encoder_features=True must be mean or sum, and true or false"),
        ({"use_encoder_features": False}, "layers.0.weight has shape (10, 40), the model needs (10, 8)"),
        ({"target_conditions": {"a": None, "b": None}}, "layers.8.weight has shape (1, 20), the model needs (2, 20)"),
    ],
)
def test_a_predictor_that_is_none_is_one_line(
    parameters: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(predictor_file(Path("predictor.ckpt"), **parameters), message, capsys)


def test_another_perceptron_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"vae.{name}": value for name, value in golden_vae().vae.state_dict().items()}
    for names in (("mlp.0.weight", "mlp.3.weight"), ("a.0.weight", "b.1.weight"), ("mlp.a.weight",)):
        parameters = trained(target_conditions={"gap": None}, vae={"nhead": 4})
        path = write(Path("predictor.ckpt"), {**state, **dict.fromkeys(names, torch.ones(2, 2))}, parameters)
        refused(path, f"beside its VAE it holds {names[0]}", capsys)


def test_files_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    refused(Path("absent.ckpt"), "absent.ckpt cannot be read ([Errno 2] No such file", capsys)
    vae = small_vae()
    path = vae_file(Path("vae.ckpt"), vae)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "is it truncated? copy it again", capsys)
    path.write_bytes(b"pickle" * 100)
    refused(path, "is not a file of torch.save", capsys)
    place = whole.index(vae.quant_conv.weight.detach().numpy().tobytes())
    path.write_bytes(whole[:place] + b"\x00" * 4 + whole[place + 4 :])
    refused(path, "Bad CRC-32", capsys)
    torch.save({"weights": 1}, path)
    refused(path, "is not a checkpoint of Lightning: it lacks the entry 'state_dict'", capsys)
    torch.save({"state_dict": OrderedDict(a=1)}, path)
    refused(path, "its state_dict holds 'a', which is no tensor", capsys)
    write(path, {"network.weight": torch.ones(2)}, {})
    refused(path, "holds no published crystal model: its weights are network, not denoiser", capsys)


def test_a_pickle_that_holds_itself_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parameters = ldm_parameters()
    parameters["again"] = parameters
    refused(write(Path("ldm.ckpt"), ldm_weights(), parameters), "recursion depth", capsys)


def test_options_of_another_kind_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    path = vae_file(Path("vae.ckpt"), golden_vae().vae)
    for words, message in (
        (["chemeleon2", str(path), "--vae", "vae.ckpt"], "--vae and --sizes are for a latent diffusion model"),
        (["chemeleon2", str(path), "--properties"], "--properties is for `atomrl import edm` alone"),
        (["edm", str(path), "--vae", "vae.ckpt"], "--vae is for `atomrl import chemeleon2` alone"),
        (["chemeleon2", str(ldm({})), "--vae", str(path)], "ldm.ckpt holds its VAE: leave out --vae vae.ckpt"),
    ):
        with pytest.raises(SystemExit):
            main(["import", *words, "--output", "out"])
        assert message in capsys.readouterr().err
    predictor_file(Path("predictor.ckpt"))
    write(path, ldm_weights(), ldm_parameters())
    with pytest.raises(SystemExit):
        main(["import", "chemeleon2", str(path), "--output", "out", "--vae", "predictor.ckpt"])
    assert "--vae predictor.ckpt holds a predictor, not a VAE" in capsys.readouterr().err
