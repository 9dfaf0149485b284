"""Options: what is refused, how it is said, and that a copy is checked too."""

from dataclasses import fields
from math import inf
from pathlib import Path

import pytest
from pydantic import ValidationError

from atomrl.checkpoints.folder import config_from
from atomrl.config import (
    Config,
    CrystalConfig,
    MoleculeConfig,
    TrainSection,
    load_config,
    read_config,
    to_yaml,
    with_overrides,
)
from atomrl.core.update import UpdateConfig
from atomrl.library.evaluation_options import overridden
from atomrl.networks.edm import EDMConfig
from atomrl.pretraining.edm_run import PretrainRun
from atomrl.pretraining.session import options_from
from atomrl.training.experiment import update_config
from atomrl.util.errors import UserError

OLD = Path(__file__).parent / "data" / "config_of_0.1.0.yaml"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": "1e-4"}, "learning_rate='1e-4' is not of type float"),
        ({"learning_rate": True}, "learning_rate=True is not of type float"),
        ({"learning_rate": 0}, "learning_rate=0: must be positive and at most 1"),
        ({"warmup_steps": 1.5}, "warmup_steps=1.5 is not of type int"),
        ({"warmup_steps": 1.0}, "warmup_steps=1.0 is not of type int"),
        ({"group_reward_norm": 1}, "group_reward_norm=1 is not of type bool"),
        ({"objective": "ppo"}, "objective=ppo: must be one of awm, fed_grpo, grpo, nft, rejection"),
        ({"reward_normalize_fn": "mean"}, "must be one of std, norm, subtract_mean, clip or null"),
        ({"learning_rat": 1e-4}, "unknown configuration key learning_rat: did you mean learning_rate?"),
        ({"train_min_time": 0.5, "train_max_time": 0.5}, "train_min_time=0.5, train_max_time=0.5: must be times"),
        (
            {"objective": "rejection", "advantages": "sum", "reward_normalize_fn": None},
            "objective=rejection keeps samples whose advantage is above 0, which with reward_normalize_fn=null or clip",
        ),
    ],
)
def test_one_line_from_python(given, message):
    with pytest.raises(UserError) as refused:
        TrainSection(**given)
    assert str(refused.value).startswith(message) or message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_section_inside_is_named_by_its_path():
    for tree, message in (
        ({"train": {"nft": {"min_time": 1, "max_time": 0.5}}}, "train.nft.min_time=1.0, train.nft.max_time=0.5: must"),
        ({"train": {"learning_rat": 1}}, "unknown configuration key train.learning_rat: did you mean learning_rate?"),
        ({"epochs": 5}, "unknown configuration key epochs: did you mean dataloader.epoches?"),
        ({"train": {"epochs": 5}}, "unknown configuration key train.epochs: did you mean dataloader.epoches?"),
        ({"learning_rate": 1}, "unknown configuration key learning_rate: did you mean train.learning_rate?"),
        ({"batch_size": 5}, "unknown configuration key batch_size: there are domain"),
        ({"train": 5}, "train=5: must be keys with values"),
        ({"train": {1: 5}}, "unknown configuration key train.1: there are"),
        ({"device": "a\nb"}, "device='a\\nb': must be one of auto, cpu, cuda"),
        ({"reward": {"energy_only_if_stable": True}}, "reward.energy_only_if_stable=true needs reward.use_energy=true"),
        ({"needs": {"file": ["a"]}}, "needs={'file': ['a']}: must map each path to a text"),
        ({"train": {"learning_rate": None}}, "train.learning_rate=None is not of type float"),
    ):
        with pytest.raises(UserError) as refused:
            MoleculeConfig.read(tree)
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)


def test_what_a_yaml_may_say_otherwise():
    config = MoleculeConfig.read(
        {
            "save_path": 5,
            "resume": "yes",
            "train": {"learning_rate": "1e-4", "warmup_steps": "3", "kl_penalty_weight": 1, "max_grad_norm": "inf"},
            "log": {"csv": 1},
        }
    )
    assert (config.save_path, config.resume, config.log.csv) == ("5", True, True)
    train = config.train
    assert (train.learning_rate, train.warmup_steps, train.max_grad_norm) == (1e-4, 3, inf)
    assert isinstance(train.kl_penalty_weight, float)


@pytest.mark.parametrize("value", [True, 1.5, 1.0, "many", [1]])
def test_what_is_no_whole_number_in_a_yaml_either(value):
    with pytest.raises(UserError, match=r"train\.warmup_steps=.* is not of type int"):
        MoleculeConfig.read({"train": {"warmup_steps": value}})


def test_a_copy_is_checked_and_the_original_stays():
    config = MoleculeConfig()
    assert config.changed(seed=3).seed == 3
    assert config.seed == 0
    with pytest.raises(UserError, match="must be a whole number of 64 bits"):
        config.changed(seed=2**64)
    with pytest.raises(UserError, match=r"exceeds model\.time_step"):
        config.changed(train=config.train.changed(train_steps=2000))
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3


def test_a_card_names_itself():
    with pytest.raises(UserError, match=r"^here, its card: layers=0: must be at least 1$"):
        config_from(EDMConfig, {"layers": 0}, "here")


def test_the_core_gets_every_option_of_an_update():
    changed = {
        "epoch_per_rollout": 2,
        "train_micro_batch_size": 3,
        "samples_per_step": 12,
        "terms_per_step": 8,
        "num_inner_batch": None,
        "max_grad_norm": 5.0,
        "max_behaviour_kl": 6.0,
        "exploded_above": 7.0,
    }
    assert changed.keys() == {entry.name for entry in fields(UpdateConfig)}
    asked = {name: value for name, value in changed.items() if name != "samples_per_step"}
    assert update_config(TrainSection(**asked, gradient_accumulation_steps=4), 5) == UpdateConfig(**changed)
    assert update_config(TrainSection(gradient_accumulation_steps=4), 5) == UpdateConfig(samples_per_step=20)
    assert update_config(TrainSection(), 5) == UpdateConfig()


def test_a_runs_configuration_looks_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's must not read the environment: what it named would stand in messages and requests."""
    monkeypatch.setenv("MINE", "s3cret")
    (tmp_path / "config.yaml").write_text("domain: molecules\nmodel:\n  backbone: ${oc.env:MINE}\n")
    with pytest.raises(UserError, match=r"oc\.env:MINE} would have to be looked up elsewhere") as refused:
        read_config(tmp_path / "config.yaml")
    assert "s3cret" not in str(refused.value)


def test_a_run_directory_of_the_first_version_is_read():
    """Keys, their order and values as that version wrote them; later keys have their defaults."""
    config = read_config(OLD)
    assert config == load_config("demo_fed_grpo")
    written = iter(to_yaml(config).splitlines())
    assert all(line in written for line in OLD.read_text().splitlines())


REFERENCES = "{H:-13.6,C:-1030,N:-1480,O:-2040,F:-2710}"


def test_the_same_text_means_the_same_in_every_command():
    word = f"reward.energy_atom_refs={REFERENCES}"
    trained, evaluated = load_config("demo", [word]), overridden(load_config("demo"), [word])
    assert trained.reward == evaluated.reward
    assert evaluated.reward.energy_atom_refs["C"] == -1030
    options = options_from(
        PretrainRun, ["model.elements=[H,C,N,O,F]", "++train.steps=3", "save_path='a=b'"], "pretrain"
    )
    assert (options.model.elements, options.train.steps, options.save_path) == (("H", "C", "N", "O", "F"), 3, "a=b")
    assert options.model.hidden == 192  # of the command, not of the network


def test_an_evaluation_has_its_own_number_of_threads():
    run = load_config("demo", ["threads=3"])
    assert overridden(run, []).threads is None
    assert overridden(run, ["threads=2"]).threads == 2
    with pytest.raises(UserError, match="threads=0"):
        overridden(run, ["threads=0"], sampled=False)
    with pytest.raises(UserError, match=r"takes no resume; it reads .*, dataloader\.smiles_path and threads"):
        overridden(run, ["resume=true"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=1,2", "seed=1,2: these are several values, and a run has one: start a run for each"),
        ("reward.components[0].weight=2", "named without brackets, reward.components.0.weight"),
        ("save_path=a=b", "Hydra cannot read this value; put it in quotes"),
        ("save_pat=a", "unknown configuration key save_pat: did you mean save_path?"),
        ("seed", "'seed' is not of the form key=value"),
        ("threads=0", "threads=0: must be at least 1 and at most 1024"),
        ("save_path=${nothing}", "nothing"),
    ],
)
def test_the_same_mistake_is_answered_alike_in_every_command(word, message):
    def pretrain(words: list[str]) -> None:
        options_from(PretrainRun, words, "pretrain edm")

    def evaluate(words: list[str]) -> Config:
        return with_overrides(CrystalConfig(), words)

    for command in (lambda words: load_config("demo", words), evaluate, pretrain):
        with pytest.raises(UserError) as refused:
            command([word])
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)
