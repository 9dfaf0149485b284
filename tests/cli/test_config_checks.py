"""Values that mean nothing, and keys that contradict each other, are refused before anything loads."""

from operator import attrgetter
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from atomrl.config import Config, MoleculeConfig, from_yaml, load_config, read_config, to_yaml
from atomrl.config.switches import require_switched_on
from atomrl.core.records import Prompts, Structures
from atomrl.domains import domain_of
from atomrl.force_fields.xtb import XTBForceField
from atomrl.measures.forces import Physics
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.force_energy import score_physics
from atomrl.training.experiment import build_objective, build_update
from atomrl.training.run import warn_of_unread, warn_of_warmup
from atomrl.training.shaping import OnTheWay
from atomrl.util.errors import UserError

CONF = Path(__file__).parents[2] / "src" / "atomrl" / "conf"
SHIPPED = [str(path.relative_to(CONF).with_suffix("")) for path in sorted(CONF.rglob("*.yaml"))]

RANGES = {
    "must be positive": [
        *("train.max_grad_norm=-1", "train.max_grad_norm=0", "train.max_grad_norm=nan", "train.max_behaviour_kl=-1"),
        *("train.clip_advantage_value=-1", "train.exploded_above=0", "train.clip_range=0", "train.learning_rate=-1"),
        *("max_time_hours=0", "reward.timeout=0", "reward.timeout=1e7", "train.learning_rate=inf"),
    ],
    "must be 0 or more": [
        *("train.kl_penalty_weight=-1", "train.weight_decay=-1", "train.weight_decay=inf", "train.force_adv_weight=-1"),
        *("early_stop_minutes=-1", "early_stop_delta=-1", "dataloader.nodes_dist_focus_multiplier=-1"),
    ],
    "must lie between 0 and 1": ["train.ema_decay=2", "train.decay_fraction=-1", "train.min_lr_ratio=5"],
    "must be positive and at most 1": ["train.rejection.kept_fraction=0", "train.rejection.kept_fraction=2"],
    "at least 0 and below 1": ["train.beta1=2", "train.beta2=1"],
    "must be at least": [
        *("train.total_steps=0", "train.warmup_steps=-1", "reward.max_iterations=0", "reward.workers=0", "threads=0"),
        *("evaluation.time_step=0", "evaluation.samples=-1"),
    ],
    "64 bits": ["seed=18446744073709551616", "evaluation.seed=18446744073709551616"],
}
TOGETHER = [
    ("train.energy_adv_weight=0.2", "set reward.use_energy=true"),
    ("train.stability_adv_weight=1", "set reward.stability_channel=own"),
    ("reward.type=dummy reward.stability_channel=own train.stability_adv_weight=1", "dummy has no channel stability"),
    ("train.force_adv_weight=0", "every channel is 0"),
    ("reward.energy_atom_refs=5", "{symbol: eV} or null, got 5"),
    ("reward.energy_atom_refs.H=much", "got H=much"),
    ("reward.energy_atom_refs.H=nan", "got H=nan"),
    ("reward.energy_transform_offset=nan", "reward.energy_transform_offset=nan: must be a finite number"),
    ("reward.energy_transform_scale=inf", "reward.energy_transform_scale=inf: must be positive and finite"),
    ("reward.stability_weight=inf", "reward.stability_weight=inf: must be 0 or more, and finite"),
    ("reward.timeout=inf", "reward.timeout=inf: must be positive and at most 86400"),
    ("domain=crystals reward.timeout=inf", "must be positive and at most 86400"),
    ("dataloader.nodes_dist_focus_min=9 dataloader.nodes_dist_focus_max=5", "nodes_dist_focus_min=9 exceeds"),
    ("domain=crystals evaluation.relaxed=-1", "at least 0"),
    ("domain=crystals reward.batch_size=0", "at least 1"),
    ("domain=crystals reward.timeout=-1", "positive"),
]


UNREAD = [
    ("train.kl_weight=1", "objective=fed_grpo does not read train.kl_weight=1; train.objective=grpo does"),
    ("train.objective=grpo train.clip_advantage_value=3", "does not read train.clip_advantage_value=3; "),
    ("train.objective=nft train.clip_range=0.1", "train.objective=fed_grpo or grpo does"),
    ("train.objective=awm train.nft.b=0.1", "objective=awm does not read train.nft.b=0.1; train.objective=nft does"),
    ("train.advantages=sum", "train.objective=nft or awm or rejection does"),
    ("train.kl_weight=1 train.kl_weight=2", "does not read train.kl_weight=1, train.kl_weight=2; "),
    (
        "train.kl_weight=1 train.entropy_weight=1e-5",
        "train.kl_weight=1, train.entropy_weight=1e-5; train.objective=grpo",
    ),
    ("train.kl_weight=1 train.nft.b=2", "train.kl_weight=1, train.nft.b=2; no objective reads all of these"),
    ("train.group_reward_norm=false", "does not read train.group_reward_norm=false; train.objective=grpo or nft or"),
    ("train.reward_normalize_fn=null", "does not read train.reward_normalize_fn=null; "),
    (
        "train.objective=nft train.group_reward_norm=false train.reward_eps=0.1",
        "train.objective=nft with train.advantages=channels does not read train.group_reward_norm=false, "
        "train.reward_eps=0.1; train.advantages=sum does: choose that, or leave it out",
    ),
    (
        "train.objective=awm train.advantages=ranks train.reward_normalize_fn=norm",
        "train.advantages=ranks does not read",
    ),
    ("train.objective=nft train.reward_eps=1 train.kl_weight=1", "train.kl_weight=1; train.objective=grpo does"),
    (
        "train.objective=nft train.force_alignment_enabled=true",
        "objective=nft does not read train.force_alignment_enabled=true; train.objective=fed_grpo does: choose that",
    ),
    (
        "train.objective=grpo train.force_alignment_weight=2 train.force_alignment_min_force=1",
        "does not read train.force_alignment_weight=2, train.force_alignment_min_force=1; train.objective=fed_grpo",
    ),
    (
        "train.objective=awm train.log_prob_reduction=mean",
        "does not read train.log_prob_reduction=mean; train.objective=fed_grpo or grpo does",
    ),
]


@pytest.mark.parametrize(("words", "message"), UNREAD)
def test_an_override_that_the_objective_does_not_read_is_refused(words, message):
    with pytest.raises(UserError) as refused:
        load_config("fed_grpo_config", ["reward.shaping.enabled=false", *words.split()])
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


SWITCHED_OFF = [
    ("reward.shaping.gamma=0.9", "with reward.shaping.enabled=false: set reward.shaping.enabled=true too"),
    (
        "reward.shaping.scheduler.mode=adaptive",
        "with reward.shaping.enabled=false: set reward.shaping.enabled=true too",
    ),
    (
        "reward.shaping.enabled=true reward.shaping.scheduler.adaptive.fine_stride=4",
        "mode=uniform: set reward.shaping.",
    ),
    ("reward.shaping.scheduler.mode=adaptive reward.shaping.scheduler.uniform_stride=2", "reward.shaping.enabled=true"),
    ("filters.penalty_scale=2", "with filters.enable_penalty=false: set filters.enable_penalty=true too"),
    (
        "train.force_alignment_weight=2",
        "with train.force_alignment_enabled=false: set train.force_alignment_enabled=tr",
    ),
    ("train.decay_fraction=0.3", "train.decay_fraction=0.3 changes nothing with train.scheduler=cosine: set train.sch"),
    ("dataloader.nodes_dist_focus_min=9", "nodes_dist_focus_multiplier=1.0: set dataloader.nodes_dist_focus_multiplie"),
    (
        "early_stop_minutes=5",
        "early_stop_minutes=5 changes nothing with early_stop_metric=null: set early_stop_metric=r",
    ),
    ("validation.groups=2", "validation.groups=2 changes nothing with validation.every=0: set validation.every=10 too"),
    ("domain=crystals dataloader.nodes_dist_focus_max=5", "dataloader.nodes_dist_focus_max=5 changes nothing with"),
    (
        "train.decay_shape=cosine",
        "train.decay_shape=cosine changes nothing with train.scheduler=cosine: set train.sched",
    ),
    (
        "train.scheduler=constant train.min_lr_ratio=0.1",
        "train.min_lr_ratio=0.1 changes nothing with train.scheduler=c",
    ),
    ("train.scheduler=constant train.min_lr_ratio=0.5", "train.scheduler=constant: set train.scheduler=cosine too"),
    ("train.force_alignment_enabled=true", "with reward.shaping.enabled=false: set reward.shaping.enabled=true too"),
    (
        "train.force_alignment_enabled=true reward.shaping.enabled=true",
        "train.force_alignment_enabled=true changes nothing with reward.shaping.scheduler.mode=uniform: set reward.",
    ),
    (
        "train.objective=nft train.nft.old_decay_max=0.3",
        "train.nft.old_decay_max=0.3 changes nothing with train.nft.old_decay_rate=0.0: set train.nft.old_decay",
    ),
    ("train.objective=awm train.awm.old_decay_max=0.3", "set train.awm.old_decay_rate=0.001 too"),
    (
        "train.objective=nft train.nft.time_weighting=noise train.nft.max_time_weight=2",
        "train.nft.max_time_weight=2 changes nothing with train.nft.time_weighting=noise: set train.nft.time_w",
    ),
    (
        "train.objective=grpo train.reward_normalize_fn=clip train.reward_eps=0.1",
        "with train.reward_normalize_fn=clip: set train.reward_normalize_fn=std too",
    ),
    (
        "reward.shaping.enabled=true reward.use_energy=true reward.shaping.mode=pbrs_return_to_go "
        "reward.shaping.only_energy_reshape=true",
        "only_energy_reshape=true changes nothing with reward.shaping.mode=pbrs_return_to_go: set reward.shaping.mod",
    ),
    (
        "reward.shaping.enabled=true reward.shaping.scheduler.mode=adaptive "
        "reward.shaping.scheduler.adaptive.threshold_timestep=10 "
        "reward.shaping.scheduler.adaptive.threshold_fraction=0.9",
        "threshold_fraction=0.9 changes nothing with reward.shaping.scheduler.adaptive.threshold_timestep=10: set ",
    ),
    ("model.return_suffix_only=false", "with model.skip_prefix=0: set model.skip_prefix=10 too"),
    ("domain=crystals model.eta=0.5", "model.eta=0.5 changes nothing with model.sampler=ddpm: set model.sampler=ddim"),
    ("reward.energy_transform_scale=2", "with reward.use_energy=false: set reward.use_energy=true too"),
    (
        "reward.gate=mask",
        "with reward.force_only_if_stable=false, reward.energy_only_if_stable=false: set reward.force_only_if_stable=",
    ),
    ("evaluation.time_step=9", "evaluation.time_step=9 changes nothing with evaluation.samples=0: set evaluation.samp"),
    ("domain=crystals evaluation.seed=9", "evaluation.seed=9 changes nothing with evaluation.samples=0"),
]


@pytest.mark.parametrize(("words", "message"), SWITCHED_OFF)
def test_an_override_of_what_is_switched_off_is_refused(words, message):
    with pytest.raises(UserError) as refused:
        require_switched_on(config_of(words), words.split())
    assert message in str(refused.value)
    assert str(refused.value).endswith(" too, or leave it out")


def test_a_section_that_is_typed_whole_is_taken_apart():
    typed = ["train.objective=nft", "train.nft={times: 8, old_decay_max: 0.3}"]
    with pytest.raises(UserError, match=r"^train\.nft\.old_decay_max=0\.3 changes nothing with train\.nft\."):
        load_config("demo", typed)
    with pytest.raises(UserError, match=r"^reward\.shaping\.gamma=0\.5 changes nothing with reward\.shaping\."):
        load_config("demo", ["reward={shaping: {gamma: 0.5}}"])
    with pytest.raises(UserError, match=r"train\.objective=nft does not read train\.kl_weight=1"):
        load_config("demo", ["train={kl_weight: 1}"])
    assert load_config("demo", ["train.nft={times: 8}"]).train.nft.times == 8


@pytest.mark.parametrize(
    "word",
    ["dataloader.context.alpha=60", "+needs.file=where", "+reward.force_field._target_=xtb"],
)
def test_a_key_in_a_mapping_of_the_users_may_be_typed(word):
    config = load_config("demo", [word])
    name = word.partition("=")[0].lstrip("+").rpartition(".")[0]
    assert attrgetter(name)(config)


def test_what_is_switched_on_or_stays_as_it_is_may_be_typed():
    for words in (
        "reward.shaping.enabled=true reward.shaping.gamma=0.9 reward.shaping.scheduler.uniform_stride=4",
        "reward.shaping.enabled=true reward.shaping.only_energy_reshape=true reward.use_energy=true "
        "reward.shaping.scheduler.mode=adaptive reward.shaping.scheduler.adaptive.threshold_fraction=0.9",
        "reward.shaping.enabled=false filters.penalty_scale=0.5 validation.groups=null",
        "filters.enable_penalty=true filters.penalty_scale=2 early_stop_metric=reward early_stop_minutes=5",
        "train.scheduler=wsd train.decay_shape=cosine train.min_lr_ratio=0.1 evaluation.samples=4 evaluation.seed=9",
        "reward.use_energy=true reward.energy_only_if_stable=true reward.gate=mask reward.energy_weight=2",
        "domain=crystals model.sampler=ddim model.eta=0.5 train.reward_normalize_fn=subtract_mean train.reward_eps=0.1",
    ):
        require_switched_on(config_of(words), words.split())


def test_a_command_says_so_too_by_the_name_of_this_package():
    with pytest.raises(UserError, match=r"train\.decay_fraction=0\.3 changes nothing with train\.scheduler=cosine"):
        load_config("fed_grpo_config", ["train.scheduler.stable_ratio=0.7"])


def test_an_override_for_crystals_that_the_objective_does_not_read_is_refused_too():
    words = ["train.objective=fed_grpo", "train.reward_eps=0.1"]
    with pytest.raises(UserError, match=r"does not read train\.reward_eps=0\.1"):
        load_config("experiment/prototypes/rl_dng_grpo", words)


def test_what_a_yaml_says_that_the_objective_does_not_read_is_named_in_one_warning(caplog):
    """A documented configuration can be tried with another objective; what has no effect then, and nothing else."""
    config = load_config("demo_fed_grpo", ["train.objective=awm"])
    warn_of_unread(config)
    (record,) = caplog.records
    for key in ("kl_penalty_weight", "step_weighting", "train_steps", "train_min_time", "train_max_time"):
        assert f"train.{key}" in record.message
    for read in ("learning_rate", "force_adv_weight", "awm", "reward_eps"):
        assert f"train.{read}" not in record.message
    caplog.clear()
    warn_of_unread(load_config("demo"))
    warn_of_unread(load_config("fed_grpo_config", ["train.objective={_target_: a.B}", "train.kl_weight=1"]))
    assert not caplog.records


def test_an_objective_of_your_own_may_compare_nothing_in_groups():
    words = ["train.objective={_target_: a.B}", "dataloader.each_prompt_sample=1"]
    assert load_config("demo", words).dataloader.each_prompt_sample == 1
    for words[0] in ("train.objective=nft", "train.objective=grpo"):
        with pytest.raises(UserError, match="a group of one has no spread"):
            load_config("demo", words)


def test_the_demo_of_crystals_by_the_objective_that_its_page_names():
    """As many draws of times as the demo makes optimizer steps: without the second word it is refused."""
    words = ["train.objective=awm", "train.awm.times=16"]
    assert f"`{' '.join(words)}` runs the demo" in (Path(__file__).parents[2] / "docs/crystals.md").read_text()
    config = load_config("experiment/prototypes/rl_dng", words)
    assert build_update(config, build_objective(config, {"energy": 1.0}), ()).num_inner_batch == 16


def test_of_a_section_that_is_not_read_the_warning_names_the_keys(tmp_path, caplog):
    (tmp_path / "own.yaml").write_text(
        "train:\n  objective: nft\n  nft: {b: 0.5}\n  awm: {clip_range: 0.5, times: 8, power: 0.25}\n"
    )
    warn_of_unread(load_config("own", folder=tmp_path))
    (record,) = caplog.records
    assert "does not read train.awm.clip_range, train.awm.power: these" in record.message  # 8 times are the default
    with pytest.raises(UserError, match=r"does not read train\.awm\.clip_range=0\.7; train\.objective=awm does"):
        load_config("own", ["train.awm.clip_range=0.7"], tmp_path)


def test_a_bound_that_rejection_does_not_read_is_named_in_one_warning(caplog):
    words = ["train.objective=rejection", "train.num_inner_batch=8", "train.rejection.kept_fraction=0.5"]
    warn_of_unread(load_config("demo", [*words, "train.rejection.clip_advantage=2.5"]))
    (record,) = caplog.records
    assert "train.rejection.clip_advantage" in record.message
    assert "kept_fraction" not in record.message


def test_a_warm_up_longer_than_the_run_is_named_in_one_warning(caplog):
    words = ["train.warmup_steps=40", "dataloader.epoches=30"]
    warn_of_warmup(load_config("demo_fed_grpo", words))
    (record,) = caplog.records
    assert "train.warmup_steps=40 exceeds dataloader.epoches=30: the rate ends at 0.75 of" in record.message
    caplog.clear()
    warn_of_warmup(load_config("demo_fed_grpo", ["train.warmup_steps=30", "dataloader.epoches=30"]))
    assert not caplog.records


def test_an_alignment_with_forces_is_named_in_the_one_warning_of_an_objective_without_it(caplog):
    words = ["train.objective=grpo", "reward.shaping.enabled=false"]
    config = load_config("fed_grpo_config", words)
    warn_of_unread(config)
    assert OnTheWay.of(config) == OnTheWay()
    (record,) = caplog.records
    assert "train.objective=grpo does not read" in record.message
    assert "train.force_alignment_enabled" in record.message


def test_the_guard_reads_how_log_probabilities_are_reduced(caplog):
    words = ["train.objective=nft", "reward.shaping.enabled=false", "train.log_prob_reduction=mean"]
    config = load_config("fed_grpo_config", [*words, "train.max_behaviour_kl=0.1"])
    warn_of_unread(config)
    assert "log_prob_reduction" not in caplog.text


@pytest.mark.parametrize(("advantages", "named"), [("channels", True), ("ranks", True), ("sum", False)])
def test_how_sums_are_normalised_is_read_where_there_are_sums(advantages, named, tmp_path, caplog):
    (tmp_path / "own.yaml").write_text(
        f"train:\n  objective: rejection\n  advantages: {advantages}\n  reward_normalize_fn: norm\n"
    )
    warn_of_unread(load_config("own", folder=tmp_path))
    assert ["train.reward_normalize_fn" in record.message for record in caplog.records] == [True] * named


def config_of(words: str) -> Config:
    """The defaults with these keys, without Hydra, which takes longer."""
    return from_yaml(OmegaConf.from_dotlist(words.split()))


@pytest.mark.parametrize(("words", "message"), TOGETHER)
def test_contradictions(words, message):
    with pytest.raises(UserError) as refused:
        config_of(words)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"), [(override, message) for message, rows in RANGES.items() for override in rows]
)
def test_ranges(override, message):
    with pytest.raises(UserError, match=message) as refused:
        config_of(override)
    assert str(refused.value).startswith(override.partition("=")[0])


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_pass_and_come_back_from_a_run_directory(name, tmp_path):
    config = load_config(name)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config


def test_values_at_the_ends_of_their_ranges_pass():
    config_of("train.max_grad_norm=inf train.ema_decay=1 train.beta1=0 train.min_lr_ratio=1 early_stop_minutes=0")
    config_of("train.objective=grpo train.kl_weight=1 train.reward_normalize_fn=null")


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("reward: {type: xtb}", {"force": 1.0}),
        ("reward: {type: xtb}\ntrain: {energy_adv_weight: 0.1}", {"force": 1.0}),  # the published value
        ("reward: {type: xtb, use_energy: true}", {"force": 1.0, "energy": 0.1}),
        ("reward: {stability_channel: own}", {"force": 1.0, "stability": 0.0}),
        ("reward: {type: dummy, use_energy: false, stability_channel: own}", {"force": 1.0, "energy": 0.1}),
    ],
)
def test_a_channel_counts_where_the_reward_gives_it(text, weights):
    """Up to the first advantages, which used to be where the defaults contradicted each other."""
    config = from_yaml(OmegaConf.create(text))
    assert isinstance(config, MoleculeConfig)
    molecules = Structures(torch.tensor([[1, 1], [1, 1]]), torch.rand(2, 2, 3).double(), torch.ones(2, 2).bool())
    prompts = Prompts(0, 0, molecules.sizes, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    if config.reward.type == "dummy":
        table = DummyReward().score(molecules, prompts)
    else:
        physics = Physics(torch.zeros(2).double(), torch.rand(2, 2, 3).double(), (None, None))
        table = score_physics(physics, molecules, prompts.group_ids, config.reward)
    assert set(table.channels) == set(config.reward.channels)
    given = domain_of(config).channel_weights(config, DummyReward())
    assert given == weights
    objective = build_objective(config, given)
    assert set(objective.advantages(table, prompts.group_ids, torch.ones(2).bool()).channels) <= weights.keys()
    paid = domain_of(config).rewarded(config)
    assert ("energy_per_atom_median" in paid) == (config.reward.type == "xtb" and "energy" in weights)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"reward: {type: dummy\n", "is not YAML"),
        (b"\tseed: 1\n", "line 1"),
        (b"seed: 1\nseed: 2\n", "duplicate key seed"),
        (b"seed: \xe9\n", "utf-8"),
        (b"- 1\n", "list"),
        (b"3\n", "invalid loaded object type: int"),
    ],
)
def test_files_that_are_no_configuration(content, message, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    for read in (lambda: load_config("mine", folder=tmp_path), lambda: read_config(tmp_path / "mine.yaml")):
        with pytest.raises(UserError) as refused:
            read()
        assert message in str(refused.value).lower().replace("yaml", "YAML")
        assert "mine" in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(UserError, match="cannot read"):
        read_config(tmp_path / "absent.yaml")


def test_a_number_to_the_base_of_60_is_refused(tmp_path):
    """YAML 1.1 has such numbers for times: an hour and a half would be 90 hours."""
    path = tmp_path / "mine.yaml"
    for text, line, read_as in (
        ("max_time_hours: 1:30\n", 1, "90"),
        ("train: {learning_rate: 1e-4,\n max_grad_norm: 0:30.5}\n", 2, "30.5"),
        ("seed: &one 1\nthreads: *one\nreward: {components: [{a: -1:30}]}\n", 3, "-90"),
    ):
        path.write_text(text)
        for read in (lambda: load_config("mine", folder=tmp_path), lambda: read_config(path)):
            with pytest.raises(UserError, match=f"^{path}, line {line}: YAML reads .* as {read_as}, to the base of 60"):
                read()
    path.write_text('save_path: "1:30"\nmodel: {backbone: C:data}\nmax_time_hours: 1.5\n')
    assert load_config("mine", folder=tmp_path).save_path == "1:30"


def test_null_workers_are_the_cores_of_this_process(monkeypatch):
    monkeypatch.setattr("atomrl.workers.local.cores", lambda: 7)
    started = []
    monkeypatch.setattr("atomrl.workers.local.WorkerPool", lambda task, workers, *rest: started.append(workers))
    XTBForceField()
    XTBForceField(3)
    assert started == [7, 3]
