"""Published configurations resolve: their keys are renamed, in a YAML and on the command line."""

from pathlib import Path

import pytest

from atomrl.config import load_config
from atomrl.config.molecules import MoleculeReward
from atomrl.config.published import ALIASES, CHECKPOINT, FILES, ONLY, STABLE, UMA, renamed_overrides
from atomrl.library.evaluation_options import overridden
from atomrl.util.errors import UserError

PUBLISHED = """
name: elign
seed: 42
dataloader: {sample_group_size: 4, each_prompt_sample: 6, micro_batch_size: 24, epoches: 200}
filters: {condition: false, enable_filtering: true, enable_penalty: false, invalid_penalty_scale: 2.0}
model: {time_step: 1000, share_initial_noise: true, skip_prefix: 600}
train:
  adv_clip_max: 4
  max_grad_norm: 1
  learning_rate: 4.0e-6
  adam_beta1: 0.8
  adam_beta2: 0.99
  adam_weight_decay: 0.001
  adam_epsilon: 0.0000001
  clip_range: 2.0e-3
  kl_penalty_weight: 0.08
  train_micro_batch_size: 8
  gradient_accumulation_steps: 1
  force_alignment_enabled: true
  force_alignment_weight: 0.5
  scheduler: {name: wsd, warmup_steps: 10, total_steps: 150, min_lr_ratio: 0.05, num_cycles: 0.5, stable_ratio: 0.9}
  max_time_hours: 6
  early_stop_metric: validity_x_uniqueness
  early_stop_mode: max
  early_stop_patience_minutes: 25
  early_stop_min_delta: 0.002
reward:
  type: xtb
  use_energy: true
  force_adv_weight: 1.0
  energy_adv_weight: 0.05
  shaping:
    enabled: true
    mlff_batch_size: 8
    terminal_weight: 5
    scheduler:
      {mode: adaptive, skip_prefix: 600, adaptive: {coarse_stride: 10, fine_stride: 2, threshold_fraction: 0.25}}
wandb: {enabled: false, wandb_project: mine, wandb_name: a run}
hydra: {job: {chdir: false}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "published.yaml").write_text(PUBLISHED)
    (tmp_path / "child.yaml").write_text(
        "defaults: [published, _self_]\ntrain: {adv_clip_max: 2, scheduler: {name: cosine}}\n"
    )
    return tmp_path


def test_a_published_file_means_what_it_says(folder: Path) -> None:
    config = load_config("published", [], folder)
    train = config.train
    assert (train.clip_advantage_value, train.beta1, train.beta2, train.weight_decay) == (4, 0.8, 0.99, 0.001)
    assert (train.epsilon, train.train_micro_batch_size, train.gradient_accumulation_steps) == (1e-7, 8, 1)
    assert (train.scheduler, train.warmup_steps, train.total_steps, train.min_lr_ratio) == ("wsd", 10, 150, 0.05)
    assert train.decay_fraction == pytest.approx(0.1)
    assert train.decay_shape == "cosine"
    assert (config.max_time_hours, config.early_stop_metric, config.early_stop_mode) == (
        6,
        "validity_x_uniqueness",
        "max",
    )
    assert (config.early_stop_minutes, config.early_stop_delta) == (25, 0.002)
    assert (config.wandb.project, config.wandb.name) == ("mine", "a run")
    assert config.channel_weights == {"force": 1.0, "energy": 0.05}
    assert config.reward.shaping.scheduler.adaptive.coarse_stride == 10
    assert config.filters.invalid_penalty_scale == 2


def test_overrides_may_use_either_name(folder: Path) -> None:
    words = [
        "train.adv_clip_max=3",
        "train.beta1=0.7",
        "train.scheduler.name=wsd",
        "train.scheduler.stable_ratio=0.7",
    ]
    train = load_config("child", words, folder).train
    assert (train.clip_advantage_value, train.beta1, train.scheduler) == (3, 0.7, "wsd")
    assert train.decay_fraction == pytest.approx(0.3)
    assert train.warmup_steps == 10  # the file's, whose mapping the override does not replace
    ours = load_config("fed_grpo_config", ["train.scheduler.name=wsd", "train.adam_beta2=0.9", "name=x"])
    assert (ours.train.scheduler, ours.train.beta2, ours.train.warmup_steps) == ("wsd", 0.9, 10)
    assert load_config("fed_grpo_config", ["train.early_stop_patience_minutes=null"]).early_stop_minutes == 20


def test_null_takes_back_what_a_published_file_says(folder: Path) -> None:
    """It kept the file's checkpoint, and a run started from that."""
    files = "model: {model_path: a/generative_model_ema.npy}\ntrain: {early_stop_patience_minutes: 5}\n"
    (folder / "mine.yaml").write_text(f"checkpoint_path: b/x.pth\n{files}")
    words = ["checkpoint_path=null", "train.early_stop_patience_minutes=null"]
    config = load_config("mine", words, folder)
    assert (config.model.backbone, config.early_stop_minutes) == ("a", 20)
    (folder / "alone.yaml").write_text("checkpoint_path: b/x.pth\n")
    assert load_config("alone", words, folder).model.backbone == "edm_qm9_small"


def test_a_schedule_typed_as_one_word_is_that_of_a_nested_yaml(folder: Path) -> None:
    """Over a YAML with the published form, over one of ours, and over no YAML's schedule."""
    word = "train.scheduler={name: wsd, warmup_steps: 3, min_lr_ratio: 0.2, num_cycles: 0.5, stable_ratio: 0.8}"
    (folder / "ours.yaml").write_text("train: {scheduler: wsd, warmup_steps: 7, decay_fraction: 0.5}\n")
    (folder / "bare.yaml").write_text("seed: 1\n")
    for name in ("published", "child", "ours", "bare"):
        train = load_config(name, [word], folder).train
        assert (train.scheduler, train.warmup_steps, train.min_lr_ratio) == ("wsd", 3, 0.2)
        assert (train.decay_fraction, train.decay_shape) == (0.2, "cosine")
    assert load_config("published", [word], folder).train.total_steps == 150  # the mapping is not replaced
    whole = load_config("ours", ["train={adv_clip_max: 2, scheduler: {name: cosine}, learning_rate: 1e-4}"], folder)
    assert (whole.train.clip_advantage_value, whole.train.scheduler, whole.train.warmup_steps) == (2, "cosine", 7)
    named = load_config("bare", ["wandb={wandb_project: 'a: \"b\"', wandb_name: '007'}"], folder).wandb
    assert (named.project, named.name) == ('a: "b"', "007")


def test_a_published_wsd_falls_by_a_cosine_and_ours_in_a_line(folder: Path) -> None:
    (folder / "ours.yaml").write_text("train: {scheduler: wsd}\n")
    (folder / "line.yaml").write_text("train: {scheduler: {name: wsd, total_steps: 9}, decay_shape: linear}\n")
    shapes = {
        ("ours",): "linear",
        ("ours", "train.scheduler.name=wsd"): "cosine",
        ("ours", "train.scheduler.name='wsd'"): "cosine",
        ("ours", "train.scheduler.name=wsd", "train.decay_shape=linear"): "linear",
        ("line",): "linear",
        ("child",): "linear",  # whose schedule is another one
        ("child", "train.scheduler.name=wsd"): "cosine",
        ("published", "train.decay_shape=linear"): "linear",
    }
    for (name, *words), shape in shapes.items():
        assert load_config(name, words, folder).train.decay_shape == shape, (name, words)
    assert load_config("demo").train.decay_shape == "linear"
    typed = renamed_overrides(["train.scheduler.name=wsd"], composing=False)
    assert typed == ["train.scheduler=wsd"]  # so that a run of a version without the shape is not changed by it unsaid


@pytest.mark.parametrize("name", ["none", "null", "None"])
def test_a_published_file_may_have_no_schedule(name: str, folder: Path) -> None:
    """Of the warm-up that it has from its parent nothing is read."""
    (folder / "flat.yaml").write_text(f"defaults: [published, _self_]\ntrain: {{scheduler: {{name: {name}}}}}\n")
    for train in (
        load_config("flat", [], folder).train,
        load_config("published", [f"train.scheduler.name={name}"], folder).train,
        load_config("fed_grpo_config", [f"train.scheduler={{name: {name}}}"]).train,
    ):
        assert (train.scheduler, train.warmup_steps) == ("constant", 0)
    assert load_config("flat", ["train.warmup_steps=3"], folder).train.warmup_steps == 3
    (folder / "flat.yaml").write_text(f"train: {{scheduler: {{name: {name}, nmae: 1}}}}\n")
    with pytest.raises(UserError, match="nmae"):
        load_config("flat", [], folder)


@pytest.mark.parametrize(
    ("name", "ours", "shape"),
    [
        ("cosine_warmup", "cosine", "linear"),
        ("constant_warmup", "constant", "linear"),
        ("linear_warmup", "constant", "linear"),
        ("warmup_stable_decay", "wsd", "cosine"),
        ("warmup-stable-decay", "wsd", "cosine"),
    ],
)
def test_a_published_schedule_has_further_names(name: str, ours: str, shape: str, folder: Path) -> None:
    (folder / "other.yaml").write_text(f"train: {{scheduler: {{name: {name}, warmup_steps: 7}}}}\n")
    typed = load_config("child", [f"train.scheduler.name={name}"], folder).train
    for train, warmup in ((load_config("other", [], folder).train, 7), (typed, 10)):
        assert (train.scheduler, train.warmup_steps, train.decay_shape) == (ours, warmup, shape)


def test_a_published_file_shares_what_it_does_not_score(tmp_path: Path) -> None:
    """As its code does where noise is shared, shaped rewards or not; a file of ours says it itself."""
    files = "config: edm/args.pickle, model_path: edm/generative_model_ema.npy"
    reward = "reward: {type: xtb, shaping: {enabled: false, scheduler: {skip_prefix: 700}}}"
    expected = {
        f"{files}, share_initial_noise: true": 700,
        f"{files}, share_initial_noise: true, skip_prefix: 600": 600,
        f"{files}, share_initial_noise: true, skip_prefix: 0": 0,
        f"{files}, share_initial_noise: false": 0,
        "share_initial_noise: true": 0,
    }
    for model, prefix in expected.items():
        (tmp_path / "mine.yaml").write_text(f"model: {{{model}}}\n{reward}\nwandb: {{wandb_name: a}}\n")
        assert load_config("mine", [], tmp_path).model.skip_prefix == prefix, model
    (tmp_path / "mine.yaml").write_text(f"model: {{{files}, share_initial_noise: true}}\n{reward}\n")
    assert load_config("mine", ["model.skip_prefix=0"], tmp_path).model.skip_prefix == 0


def test_published_files_are_a_backbone(tmp_path: Path) -> None:
    files = "config: ./edm/args.pickle, model_path: ./edm/generative_model_ema.npy"
    (tmp_path / "mine.yaml").write_text(f"checkpoint_path: null\nmodel: {{{files}}}")
    assert load_config("mine", [], tmp_path).model.backbone == "edm"
    assert load_config("mine", ["checkpoint_path=runs/a.pth"], tmp_path).model.backbone == "runs/a.pth"
    assert load_config("mine", ["model.config=other/args.pickle"], tmp_path).model.backbone == "other"
    (tmp_path / "mine.yaml").write_text(f"checkpoint_path: here/b.pth\nmodel: {{{files}}}")
    assert load_config("mine", [], tmp_path).model.backbone == "here/b.pth"


def test_a_published_force_field_is_uma(tmp_path: Path) -> None:
    """The reward of the published configurations as it stands there."""
    reward = "{type: uma, mlff_model: uma-s-1p1, use_energy: true, energy_atom_refs: omol}"
    (tmp_path / "mine.yaml").write_text(f"reward: {reward}")
    found = load_config("mine", [], tmp_path).reward
    assert (found.type, found.energy_atom_refs) == ("uma", "omol")
    assert found.force_field == {"_target_": "uma", "model": "uma-s-1p1"}
    other = load_config("mine", ["reward.mlff_model=uma-m-1p1"], tmp_path).reward
    assert other.force_field == {"_target_": "uma", "model": "uma-m-1p1"}
    assert load_config("mine", ["reward.type=dummy"], tmp_path).reward.chosen_force_field is None
    words = ["reward.type=xtb", "reward.force_field=null", "reward.energy_atom_refs=xtb"]
    assert load_config("mine", words, tmp_path).reward.by_gfn2


def test_a_typed_xtb_is_not_overruled_by_a_force_field(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("reward: {type: uma, mlff_model: uma-s-1p1}")
    two = "reward.type=xtb and reward.force_field=uma name two force fields: set reward.force_field=null too"
    with pytest.raises(UserError, match=two):
        load_config("mine", ["reward.type=xtb"], tmp_path)
    with pytest.raises(UserError, match=two):  # of `atomrl evaluate`, whose control it chooses by
        overridden(load_config("mine", [], tmp_path), ["reward.type=xtb"])
    assert load_config("mine", ["reward.type=xtb", "reward.force_field=null"], tmp_path).reward.by_gfn2
    with pytest.raises(UserError, match=r"type=ani and reward\.force_field name two .*set reward\.force_field=null"):
        load_config("mine", ["reward.type=ani"], tmp_path)
    (tmp_path / "mine.yaml").write_text("reward: {type: xtb, force_field: mace}")
    assert not load_config("mine", ["seed=1"], tmp_path).reward.by_gfn2  # the file's, and nobody typed it
    same = ["reward.type=xtb", "reward.force_field={_target_: xtb}"]
    assert load_config("fed_grpo_config", same).reward.by_gfn2


def test_a_typed_type_is_not_overruled_by_the_yamls_components() -> None:
    """The demo's YAML names its forces and energies among the components."""
    beside = r"reward\.type=ani changes nothing beside reward\.components, of which xtb computes forces and energies: "
    with pytest.raises(UserError, match=beside + r".*=\[\] too, or reward\.force_field=ani in its place, or leave"):
        load_config("demo", ["reward.type=ani"])
    alone = r"type=dummy changes nothing .* of which xtb .*=\[\] too, or leave reward\.type out$"
    with pytest.raises(UserError, match=alone):
        load_config("demo", ["reward.type=dummy"])


def test_a_typed_type_beside_what_it_agrees_with() -> None:
    def reward(*words: str) -> MoleculeReward:
        return load_config("demo", words).reward

    other = "reward.energy_atom_refs=own"
    assert reward("reward.type=xtb").by_gfn2
    assert not reward("reward.type=ani", "reward.force_field=ani", other).by_gfn2
    assert not reward("reward.type=ase", "reward.force_field={_target_: ase.calculators.emt.EMT}", other).by_gfn2
    none = ["reward.type=dummy", "train.stability_adv_weight=0"]
    assert reward(*none, "reward.components=[]").built_in == "dummy"
    typed = "reward.components=[{_target_: xtb}, {_target_: mine.py:score}]"  # in place of the type
    assert reward("reward.type=dummy", typed).built_in == "xtb"


def test_a_child_overrides_its_parent_by_the_same_names(folder: Path) -> None:
    train = load_config("child", [], folder).train
    assert (train.clip_advantage_value, train.scheduler, train.warmup_steps) == (2, "cosine", 10)


def test_a_published_number_may_be_written_in_any_way() -> None:
    for text in ("0.5", "0.50", ".5", "5e-1"):
        assert load_config("fed_grpo_config", [f"train.scheduler.num_cycles={text}"]).train.scheduler == "cosine"


def test_equal_values_under_two_names_are_one(folder: Path) -> None:
    words = ["train.adv_clip_max=2", "train.clip_advantage_value=2.0"]
    assert load_config("child", words, folder).train.clip_advantage_value == 2
    rates = ["train.scheduler=wsd", "train.scheduler.stable_ratio=0.75", "train.decay_fraction=0.25"]
    assert load_config("child", rates, folder).train.decay_fraction == 0.25


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "train: {adv_clip_max: 2, clip_advantage_value: 3}",
            [],
            "are one option, and have different values: give one",
        ),
        ("filters: {condition: true}", [], "filters.condition=True: of this published key only false is known here"),
        ("", ["train.scheduler.num_cycles=half"], "train.scheduler.num_cycles=half: of this published key only 0.5 is"),
        ("", ["train.scheduler.num_cycles=2"], "train.scheduler.num_cycles=2: of this published key only 0.5 is known"),
        ("train: {scheduler: {stable_ratio: long}}", [], "train.scheduler.stable_ratio=long: must be a number"),
        ("", ["train.scheduler.stable_ratio=x"], "must be a number between 0 and 1"),
        ("", ["train.scheduler.stable_ratio=2"], "train.scheduler.stable_ratio=2.0: must be a number between 0 and 1"),
        (
            "",
            ["train.adv_clip_max=2", "train.clip_advantage_value=3"],
            "train.adv_clip_max and train.clip_advantage_value",
        ),
        ("", ["model.backbone=mine", "checkpoint_path=a.pth"], "model.backbone and checkpoint_path are one option"),
        ("train: {scheduler: {nmae: wsd}}", [], "nmae"),
        ("train: {scheduler: {name: wsd, nmae: 1}}", [], "train.scheduler.nmae: no published key that is known here"),
        ("train: {scheduler: {nmae: 1, name: wsd}}", [], "train.scheduler.nmae: no published key that is known here"),
        ("", ["train.scheduler={name: wsd, nmae: 1}"], "nmae"),
        (
            "",
            ["train.scheduler={name: wsd, num_cycles: 2}"],
            "train.scheduler.num_cycles=2: of this published key only",
        ),
        ("", ["train.scheduler={stable_ratio: 2}"], "train.scheduler.stable_ratio=2.0: must be a number between 0 and"),
        ("", ["train.scheduler={name: wsd"], "Hydra cannot read this value"),
        ("", ["train.scheduler={name: wsd}", "train.scheduler=cosine"], "train.scheduler.name and train.scheduler are"),
        (
            "model: {config: edm/settings.pickle}",
            [],
            "model.config=edm/settings.pickle: must be the path of args.pickle",
        ),
        (
            "model: {config: a/args.pickle, model_path: b/generative_model_ema.npy}",
            [],
            "model.config and model.model_path are one option, and have different values",
        ),
        (
            "",
            ["model.config=a/args.pickle", "model.model_path=b/generative_model_ema.npy"],
            "model.config and model.model_path lie in one folder, and are given in a and b",
        ),
        ("reward: {type: uma, mlff_model: 3}", [], "reward.mlff_model=3: must be the name of UMA's weights"),
        ("checkpoint_path: 3", [], "checkpoint_path=3: must be the path of a checkpoint"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text or "seed: 1")
    with pytest.raises(UserError) as refused:
        load_config("mine", overrides, tmp_path)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_an_override_gives_may_be_missing_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "seed: ???\ntrain: {adv_clip_max: 2, learning_rate: '${train.clip_range}', clip_range: 0.01}"
    )
    config = load_config("mine", ["seed=4"], tmp_path)
    assert (config.seed, config.train.learning_rate, config.train.clip_advantage_value) == (4, 0.01, 2)


def test_the_page_lists_every_name() -> None:
    """docs/molecules.md, in its table of published names."""
    page = (Path(__file__).parents[2] / "docs" / "molecules.md").read_text()
    table = page.partition("### Published names\n")[2].partition("\n## ")[0]
    for published, ours in ALIASES.items():
        assert f"| `{published}` | `{ours}` |" in table, published
    for key in (*ONLY, *FILES, CHECKPOINT, UMA, STABLE):
        assert f"`{key}`" in table
