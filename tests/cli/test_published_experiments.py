"""Published experiments of crystals compose unchanged, out of their own folder or alone, and mean the same here."""

import logging
import re
from pathlib import Path

import published_experiments
import pytest

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.config.crystals import CrystalConfig
from atomrl.config.published_crystals import ALIASES, CONVERTED, ONLY, rows
from atomrl.config.published_typed import INSTEAD
from atomrl.util.errors import UserError

ROOT = Path(__file__).parents[2]
DNG = "experiment/mp_20/rl_dng"
BANDGAP = "experiment/alex_mp_20_bandgap/rl_bandgap"
OURS = {"save_path", "needs", "evaluation", "wandb"}
"""Keys in which a shipped experiment says more than the published one of its name."""


@pytest.fixture(params=[(), ("experiment", "custom_reward")], ids=["whole folder", "experiments alone"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """With characters that Hydra's grammar knows in its name."""
    return published_experiments.write(tmp_path / 'my, "own" [runs]', *request.param)


def crystal_config(name: str, words: list[str], folder: Path) -> CrystalConfig:
    config = load_config(name, words, folder)
    assert isinstance(config, CrystalConfig)
    return config


def plain(config: CrystalConfig) -> dict[str, object]:
    """A configuration with classes by one name, and without what ours say beside."""
    tree = {key: value for key, value in config.model_dump().items() if key not in OURS}
    for component in tree["reward"]["components"]:
        component["_target_"] = component["_target_"].replace("src.rl_module", "atomrl.rewards")
        component.setdefault("normalize_fn", None)
    return tree


def test_a_published_experiment_is_the_shipped_one(folder: Path) -> None:
    """But for the hull's path, which is the default, the predictor, and where the weights are imported to."""
    published = crystal_config(DNG, ["reward.hull=data/mp_20/hull.json", "dataloader.epoches=1000"], folder)
    assert published.model.backbone == "checkpoints/mp_20_ldm_base"
    shipped = load_config(DNG, ["model.backbone=checkpoints/mp_20_ldm_base", "dataloader.micro_batch_size=512"])
    assert isinstance(shipped, CrystalConfig)
    assert plain(published) == plain(shipped)
    gap, ours = crystal_config(BANDGAP, [], folder), load_config(BANDGAP)
    assert gap.train == ours.train
    assert gap.model.backbone == "checkpoints/alex_mp_20_ldm_rl"
    predictor, diversity = gap.reward.components
    assert predictor["predictor"] == "ckpts/alex_mp_20_bandgap/predictor/predictor_dft_band_gap_e8mhs4yg"
    assert (predictor["target_value"], diversity["weight"]) == (3.0, 0.5)
    assert gap.reward.reference_dataset == "data/alex_mp_20"
    assert gap.dataloader.epoches == 500  # 1000 optimizer steps, two in an iteration
    po = crystal_config("experiment/mp_20/rl_dng_po", [], folder)
    assert (po.dataloader.sample_group_size, po.dataloader.each_prompt_sample) == (320, 1)
    assert po.train.group_reward_norm is False
    assert [component["weight"] for component in po.reward.components] == [1.0, 1.0, 0.1, 1.0]


def test_what_must_be_imported_is_named_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--config-dir", str(folder), f"experiment={BANDGAP.removeprefix('experiment/')}"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    predictor = "ckpts/alex_mp_20_bandgap/predictor/predictor_dft_band_gap_e8mhs4yg"
    assert "atomrl import chemeleon2 FILE --output checkpoints/alex_mp_20_ldm_rl, or say where it is, hub.alex" in line
    assert f"{predictor} (import it: atomrl import chemeleon2 {predictor}.ckpt --output {predictor})" in line
    assert "alex_mp_20_vae" not in line  # the backbone's folder holds it
    for file in ("train.csv", "val.csv", "hull.json"):
        assert f"data/alex_mp_20/{file} (" in line


def test_a_hub_says_where_models_are(folder: Path) -> None:
    config = load_config(DNG, ["hub.mp_20_ldm_base=mine/ldm"], folder)
    assert config.model.backbone == "mine/ldm"
    (folder / "experiment" / "hub.yaml").write_text(
        published_experiments.FILES[f"{DNG}.yaml"].replace("\ndata:", "\nhub: {mp_20_ldm_base: here}\ndata:")
    )
    assert load_config("experiment/hub", [], folder).model.backbone == "here"
    words = ["rl_module.ldm_ckpt_path=${hub:alex_mp_20_ldm_base}", "hub.alex_mp_20_ldm_base=there"]
    assert load_config(DNG, words).model.backbone == "there"
    assert load_config(DNG, words[:1]).model.backbone == "checkpoints/alex_mp_20_ldm_base"


def test_values_may_stand_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's ending, a set and a device are what they are there; what nothing reads need not be there."""
    monkeypatch.setenv("CKPTS", "/models")
    text = published_experiments.FILES[f"{DNG}.yaml"].replace(
        "\ndata:", "\ntrainer: {accelerator: '${oc.env:A,gpu}'}\ndata:"
    )
    text = text.replace("reference_dataset: mp-20", "reference_dataset: ${oc.env:REFERENCE,alex-mp-20}")
    text = text.replace("${hub:mp_20_vae}", "${oc.env:NOWHERE}/vae.ckpt")
    for path, backbone in (
        ("${oc.env:CKPTS}/ldm.ckpt", "/models/ldm"),
        ("${hub:'mp_20_ldm_base'}", "checkpoints/mp_20_ldm_base"),
        ("${hub:${data.dataset_type}_ldm_base}", "checkpoints/mp_20_ldm_base"),
    ):
        (folder / "experiment" / "elsewhere.yaml").write_text(text.replace("${hub:mp_20_ldm_base}", path))
        config = crystal_config("experiment/elsewhere", ["data.dataset_type=mp_20"], folder)
        assert (config.model.backbone, config.device) == (backbone, "auto")
        assert config.reward.reference_dataset == "data/alex_mp_20"
        assert "atomrl import chemeleon2" in config.needs[backbone]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("${oc.env:NOWHERE}/ldm.ckpt", "rl_module.ldm_ckpt_path: KeyError raised while resolving interpolation"),
        ("${hub:mp_20/ldm}", "rl_module.ldm_ckpt_path=${hub:mp_20/ldm}: must be the path of a checkpoint, a folder or"),
    ],
)
def test_what_is_not_elsewhere_is_one_line(path: str, message: str, tmp_path: Path) -> None:
    folder = published_experiments.write(tmp_path)
    (folder / f"{DNG}.yaml").write_text(
        published_experiments.FILES[f"{DNG}.yaml"].replace("${hub:mp_20_ldm_base}", path)
    )
    with pytest.raises(UserError) as refused:
        load_config(DNG, [], folder)
    assert message in str(refused.value)


def test_a_reward_stands_beside_an_experiment(folder: Path) -> None:
    both = crystal_config(DNG, ["custom_reward=density"], folder)
    alone = crystal_config("custom_reward/density", [], folder)
    for config in (both, alone):
        assert [component["_target_"] for component in config.reward.components] == ["custom_reward.density.Density"]
        assert (config.dataloader.sample_group_size, config.dataloader.each_prompt_sample) == (4, 8)
        assert config.dataloader.epoches == 3
    assert both.wandb.name == "rl_dng_grpo"


@pytest.mark.parametrize(
    "words", [["callbacks=default", "hydra/job_logging=colorlog"], ["paths=default", "scheduler=constant"]]
)
def test_groups_may_be_chosen(words: list[str], folder: Path) -> None:
    assert load_config(DNG, words, folder) == load_config(f"{DNG}.yaml", [], folder)


def test_a_group_may_be_left_out(folder: Path) -> None:
    """`logger=null`, also where the base does not list the group; what the experiment itself says of it stays."""
    found = crystal_config(DNG, ["logger=null", "trainer=null"], folder)
    assert (found.wandb.project, found.wandb.name) == ("atomrl", "rl_dng_grpo")
    assert found.train == crystal_config(DNG, [], folder).train


def test_published_names_may_be_overridden(folder: Path) -> None:
    words = ["data.batch_size=7", "rl_module.rl_configs.num_group_samples=9", "trainer.max_steps=9", "model.eta=0.5"]
    config = crystal_config(DNG, words, folder)
    assert (config.dataloader.sample_group_size, config.dataloader.each_prompt_sample) == (7, 9)
    assert (config.dataloader.epoches, config.model.eta) == (5, 0.5)
    ours = load_config(DNG, [*words[:2], "rl_module.optimizer.lr=1e-6"])
    assert (ours.dataloader.sample_group_size, ours.dataloader.each_prompt_sample) == (7, 9)
    assert ours.train.learning_rate == 1e-6


@pytest.mark.parametrize("key", ["train.num_inner_batch", "rl_module.rl_configs.num_inner_batch"])
def test_steps_are_divided_by_those_of_an_iteration_by_either_name(key: str, folder: Path) -> None:
    config = crystal_config(BANDGAP, [f"{key}=4"], folder)
    assert (config.train.num_inner_batch, config.dataloader.epoches) == (4, 250)  # 1000 steps
    assert crystal_config(BANDGAP, [f"{key}=4", "dataloader.epoches=7"], folder).dataloader.epoches == 7


def test_the_documented_default_composes() -> None:
    """configs/rl_module/rl_module.yaml, by its path below the folder or by its own folder."""
    found = [
        load_config(*where)
        for where in (
            ("rl_module/rl_module", ["seed=3"], ROOT / "configs"),
            ("rl_module", ["seed=3"], ROOT / "configs" / "rl_module"),
        )
    ]
    assert found[0] == found[1]
    config = found[0]
    assert isinstance(config, CrystalConfig)
    assert (config.domain, config.model.backbone, config.seed) == ("crystals", "crystal_small", 3)
    assert (config.train.objective, config.train.clip_range, config.train.kl_weight) == ("grpo", 0.001, 1.0)
    assert (config.dataloader.each_prompt_sample, config.train.group_reward_norm) == (1, False)
    assert (config.train.entropy_weight, config.train.num_inner_batch, config.train.learning_rate) == (1e-5, 2, 1e-5)
    assert [component["weight"] for component in config.reward.components] == [1.0, 1.0, 0.1, 1.0]


def test_what_is_ours_may_stand_beside(tmp_path: Path) -> None:
    ours = "trainer: null\nneeds: {mine.csv: from me}\nseed: 5\ntrain: {max_behaviour_kl: 0.1}\n"
    folder = published_experiments.write(tmp_path, "experiment/mp_20/rl_dng.yaml")
    with (folder / f"{DNG}.yaml").open("a") as file:
        file.write(ours)
    config = load_config(DNG, [], folder)
    assert (config.seed, config.train.max_behaviour_kl, config.train.clip_range) == (5, 0.1, 0.001)
    assert config.needs["mine.csv"] == "from me"
    assert "checkpoints/mp_20_ldm_base" in config.needs
    assert config.needs["data/mp_20/hull.json"].endswith("made by: atomrl data reference data/mp_20")


def test_what_changes_nothing_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = published_experiments.write(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_config(DNG, [], folder)
    assert [record.getMessage() for record in caplog.records] == [
        "published keys that change nothing here: callbacks, data.data_dir, data.dataset_type, data.num_workers, "
        "logger, rl_module.vae_ckpt_path, trainer; "
        "see docs/published-crystals.md"
    ]


@pytest.mark.parametrize("published", [True, False], ids=["upon a published file", "upon one of ours"])
def test_what_was_typed_is_refused_with_what_does_it_here(published: bool, tmp_path: Path) -> None:
    """Each key of the table; a file may have them all."""
    folder = published_experiments.write(tmp_path) if published else None
    for key, instead in INSTEAD.items():
        with pytest.raises(UserError, match=re.escape(f"{key}=7: this published key changes nothing here; {instead}")):
            load_config(DNG, ["seed=3", f"{key}=7"], folder)


@pytest.mark.parametrize("published", [True, False], ids=["upon a published file", "upon one of ours"])
def test_what_was_typed_and_changes_nothing_is_named(
    published: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By its own name, not by that of its section; so is what asks for nothing, which is not refused."""
    folder = published_experiments.write(tmp_path) if published else None
    words = [
        "++trainer.enable_progress_bar=false",
        "logger.wandb.group=a",
        "callbacks.early_stopping=null",
        "task_name=b",
        "trainer.max_epochs=None",
        "trainer.max_epochs=''",
        "paths.log_dir='null'",
        "trainer.val_check_interval=1.0",
        "trainer.check_val_every_n_epoch=1",
        "data.num_workers=4",
        *([] if published else ["hydra.verbose=true"]),  # of use where Hydra composes groups
        *([] if published else ["logger=[]", "trainer.max_epochs=~"]),  # Hydra takes them for groups, or for no value
    ]
    plain = load_config(DNG, ["seed=3"], folder)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert load_config(DNG, ["seed=3", *words], folder) == plain
    said = [record.getMessage() for record in caplog.records if "on the command line" in record.getMessage()]
    remedies = {
        "logger=[]": "`wandb.enabled`, `log.tensorboard`, `log.csv` say where metrics go",
        "data.num_workers=4": "`reward.workers` is the number of processes that score",
    }
    named = [f"{word} ({remedies[word]})" if word in remedies else word for word in words]
    assert said == [
        f"keys on the command line that change nothing here: {', '.join(named)}; see docs/published-crystals.md"
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("logger=wandb", "logger=wandb: this published key changes nothing here; give `wandb.enabled`"),
        ("logger=[csv,wandb]", "logger=[csv,wandb]: this published key changes nothing here; give `log.csv`"),
        ("trainer={max_epochs: 3}", "trainer.max_epochs=3: this published key changes nothing here; give `dataloader"),
        ("callbacks={early_stopping: {patience: 3}}", "callbacks.early_stopping.patience=3: this published key"),
        ("trainer.val_check_interval=1", "trainer.val_check_interval=1: this published key changes nothing here"),
    ],
)
@pytest.mark.parametrize("published", [True, False], ids=["upon a published file", "upon one of ours"])
def test_sections_are_no_way_around(word: str, message: str, published: bool, tmp_path: Path) -> None:
    folder = published_experiments.write(tmp_path) if published else None
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(DNG, [word], folder)


def test_a_text_may_look_like_a_day() -> None:
    assert load_config(DNG, ["wandb.name=2026-02-30"]).wandb.name == "2026-02-30"
    with pytest.raises(UserError):  # and a tag of YAML's is no traceback
        load_config(DNG, ["trainer.max_epochs=!!timestamp foo"])


def test_a_training_refuses_them_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "experiment=prototypes/rl_dng", "callbacks.early_stopping.patience=3"])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("patience=3: this published key changes nothing here; give `early_stop_patience`")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["scheduler=warmup_linear"],
            "torch.optim.lr_scheduler.ConstantLR is known here; give `train.scheduler` (constant",
        ),
        (["trainer.devices=4"], "trainer.devices=4: of this published key only 1 or auto is known here; start several"),
        (
            ["trainer.max_epochs=3"],
            "trainer.max_epochs=3: this published key changes nothing here; give `dataloader.epoches`, iterations",
        ),
        (["trainer.max_time=00:01:00:00"], "only null is known here; give `max_time_hours`"),
        (["trainer.accumulate_grad_batches=2"], "only 1 is known here; give `train.gradient_accumulation_steps`"),
        (["trainer.fast_dev_run=true"], "only false is known here; give `dataloader.epoches=1`"),
        (
            ["ckpt_path=last.ckpt"],
            "ckpt_path=last.ckpt: of this published key only null is known here; give `save_path`",
        ),
        (["data.mace_features=true"], "data.mace_features=True: of this published key only false is known here"),
        (["rl_module.reward_fn.reward_type=csp"], "only dng is known here; list its components"),
        (
            ["rl_module.rl_configs.clip=1"],
            "rl_module.rl_configs.clip: no published key that is known here; did you mean",
        ),
        (["trainer.accelerator=tpu"], "trainer.accelerator=tpu: must be one of cpu, gpu, cuda, auto"),
        (
            ["trainer.max_steps=0"],
            "trainer.max_steps=0 with train.num_inner_batch=2: both must be whole numbers",
        ),
        (["hub=3"], "hub=3: must map names of published models to their folders"),
        (["hub.mp_20_ldm_base=3"], "hub.mp_20_ldm_base=3: must be the folder that `atomrl import chemeleon2` made"),
        (["hub.mp_20_ldm_base=hub:a/b"], "the Hugging Face hub is given as model.backbone=hub:a/b"),
        (["rl_module.ldm_ckpt_path=3"], "rl_module.ldm_ckpt_path=3: must be the path of a checkpoint, a folder or"),
        (["rl_module.reward_fn.reference_dataset=3"], "must be one of mp-20, alex-mp-20, or a folder"),
        (["data=mp-200"], "Could not find 'data/mp-200'"),
        (["rl_module.rl_configs.group_reward_norm=true", "rl_module.rl_configs.num_group_samples=1"], "a group of one"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    folder = published_experiments.write(tmp_path)
    with pytest.raises(UserError) as refused:
        load_config(DNG, words, folder)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_other_published_trainings_name_their_command(tmp_path: Path) -> None:
    for module, command in (("ldm_module", "ldm"), ("vae_module", "vae"), ("predictor_module", "predictor")):
        (tmp_path / "one.yaml").write_text(f"{module}: {{vae_ckpt_path: x}}\ndata: {{batch_size: 3}}\n")
        with pytest.raises(UserError, match=f"{module}=.*not known here; `atomrl pretrain {command}` trains a"):
            load_config("one", [], tmp_path)


@pytest.mark.parametrize(
    "name", ["alex_mp_20/rl_dng", "alex_mp_20_bandgap/rl_bandgap", "mp_20/rl_dng", "mp_20/rl_dng_po"]
)
def test_a_missing_hull_is_named_with_the_command_that_makes_it(name: str) -> None:
    config = load_config(f"experiment/{name}", [])
    assert isinstance(config, CrystalConfig)
    assert config.reward.hull is not None
    folder = config.reward.hull.removesuffix("/hull.json")
    assert config.needs[config.reward.hull].endswith(f"made by: atomrl data reference {folder}")


def test_steps_upon_a_yaml_of_ours_are_refused() -> None:
    with pytest.raises(UserError, match=r"trainer.max_epochs=9: .* give `dataloader.epoches`, iterations"):
        load_config(DNG, ["trainer.max_epochs=9"])
    with pytest.raises(UserError, match=r"trainer.max_steps=9: give dataloader.epoches, iterations; each"):
        load_config(DNG, ["trainer.max_steps=9"])


def test_published_pages_name_a_reward_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["custom_reward=rl_dng"], "this experiment needs files that are not in"),
        (["custom_reward=density"], "custom_reward=density: must be one of rl_dng, rl_bandgap, custom_reward; or give"),
        (["custom_reward=rl_dng", "experiment=mp_20/rl_dng"], "custom_reward=rl_dng: name one YAML only"),
    ):
        with pytest.raises(SystemExit):
            main(["train", *words])
        assert message in capsys.readouterr().err


def test_the_page_has_the_tables_of_the_code() -> None:
    page = (ROOT / "docs" / "published-crystals.md").read_text()
    table = page.partition("| published key | here |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| {key} | {ours} |" for key, ours in rows()]
    for key in (*ALIASES, *CONVERTED, *ONLY):
        assert f"| `{key}` |" in table
