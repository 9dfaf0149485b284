"""What a run does after each iteration, with a trainer and a clock that only pretend: saving, stopping."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from atomrl.config import TrainSection, load_config
from atomrl.core.iteration import IterationConfig
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import RewardTable
from atomrl.core.rollout import RolloutConfig
from atomrl.policies.toy import SubspaceGaussian
from atomrl.rewards.dummy import DummyReward
from atomrl.training import callbacks
from atomrl.training.callbacks import Checkpoints, Interruption, Limits
from atomrl.training.parts import Parts
from atomrl.training.rl_module import RLModule

HOUR = 3600.0


class Clock:
    """Stands where the package reads the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1e6
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: self.now))


class Trainer:
    """What the callbacks ask of Lightning's; a checkpoint says of which iteration it is."""

    def __init__(self, max_epochs: int = 5) -> None:
        self.max_epochs, self.current_epoch, self.should_stop = max_epochs, 0, False
        self.callback_metrics: dict[str, torch.Tensor] = {}


class Snapshots:
    """A checkpoint says of which iteration it is."""

    def take(self, trainer: Trainer) -> bytes:
        return str(trainer.current_epoch).encode()


def module(config: TrainSection | None = None) -> RLModule:
    """Of a toy, 20 iterations long."""
    return RLModule(
        Parts(
            policy=SubspaceGaussian(torch.zeros(4)),
            plan=PromptPlan(SizeDistribution({2: 1}), 1, 2),
            reward=DummyReward(),
            objective=FedGRPO(FedGRPOConfig()),
            iteration=IterationConfig(RolloutConfig(5)),
            optimization=config or TrainSection(),
            total_steps=20,
        )
    )


def follow(callback, trainer: Trainer, values: list[float], clock: Clock | None = None, seconds: float = 0) -> int:
    """Iterations with these values until the run stops; how many that were."""
    trained = module()
    for done, value in enumerate(values):
        trainer.current_epoch, trained.line = done, {"reward": value}
        if clock is not None:
            clock.now += seconds
        callback.on_train_epoch_end(trainer, trained)
        if trainer.should_stop:
            return done + 1
    return len(values)


def test_a_run_may_be_given_hours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It stops after the first iteration that ends beyond them; without a limit it never does."""
    clock = Clock(monkeypatch)
    limits = Limits(load_config("demo", ["max_time_hours=2.5"]))
    assert follow(limits, Trainer(), [0.0] * 5, clock, HOUR) == 3
    assert capsys.readouterr().out == "max_time_hours=2.5 reached: stopping\n"
    free = Trainer()
    assert follow(Limits(load_config("demo", [])), free, [0.0] * 5, clock, 1000 * HOUR) == 5
    assert not free.should_stop


EARLY = ["early_stop_metric=reward", "early_stop_minutes=10", "early_stop_delta=0.5"]


@pytest.mark.parametrize(
    ("rewards", "iterations"),
    [
        ([0, 1, 2, 3, 4, 5, 6], 7),
        ([0, 0.5, 0.9, 1.0, 1.4, 1.5, 2], 7),  # each second one improves by the 0.5 that counts
        ([3, 2, 1, 0, 0], 4),  # 4 minutes each: the third without a better one passes 10
        ([0, 1, 1.4, 1.4, 1.4, 9], 5),  # an improvement by less than 0.5 is none
        ([0, float("nan"), float("nan"), float("nan")], 4),
    ],
)
def test_a_run_stops_when_a_number_no_longer_improves(
    rewards: list[float], iterations: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, trainer = Clock(monkeypatch), Trainer()
    limits = Limits(load_config("demo", EARLY))
    assert follow(limits, trainer, rewards, clock, seconds=240) == iterations
    stopped = trainer.should_stop
    assert stopped == (iterations < 7)
    assert ("reward has not improved for 10.0 minutes: stopping" in capsys.readouterr().out) == stopped


def test_a_number_may_have_to_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, limits = Clock(monkeypatch), Limits(load_config("demo", [*EARLY, "early_stop_mode=min"]))
    assert follow(limits, Trainer(), [9.0, 8, 7, 6, 6, 6, 7, 7], clock, seconds=240) == 7


def test_a_resumed_run_keeps_the_best_value(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    first = Limits(load_config("demo", EARLY))
    follow(first, Trainer(), [3.0], clock, seconds=240)
    resumed = Limits(load_config("demo", EARLY))
    resumed.load_state_dict(first.state_dict())
    assert follow(resumed, Trainer(), [2.0] * 9, clock, seconds=240) == 3


def test_minutes_count_where_the_number_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations half an hour apart cannot improve in ten minutes: the run ends at the first that has not."""
    config = load_config("demo", ["validation.every=3", "early_stop_metric=val/reward", "early_stop_minutes=10"])
    clock, trained, trainer, done = Clock(monkeypatch), module(), Trainer(), 0
    limits = Limits(config)
    trained.drawn = SimpleNamespace(table=RewardTable({"force": torch.ones(1)}, (None,)))
    for value in [None, None, 1.0, None, None, 2.0, None, None, 1.5, None]:
        trained.line, done = {"reward": 0.0, **({} if value is None else {"val/reward": value})}, done + 1
        clock.now += HOUR / 6
        limits.on_train_epoch_end(trainer, trained)
        if trainer.should_stop:
            break
    assert done == 9


class Told:
    """A collective of which this process is the second, and the first says the same each time."""

    rank, size = 1, 2

    def __init__(self, said: object = None, others: int = 0) -> None:
        self.said, self.others = said, others

    def of_first(self, value: object) -> object:
        return self.said

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + self.others


def test_rank_0_decides_when_to_stop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the clocks of the others say; and says so alone."""
    clock, config = Clock(monkeypatch), load_config("demo", ["max_time_hours=2.5"])
    assert follow(Limits(config, Told(["max_time_hours=2.5 reached"])), Trainer(), [0.0] * 5) == 1
    assert follow(Limits(config, Told([])), Trainer(), [0.0] * 5, clock, HOUR) == 5
    assert capsys.readouterr().out == ""


def test_a_process_stops_where_another_got_sigterm() -> None:
    alone, told = Interruption(), Interruption(Told(others=1))
    assert follow(alone, Trainer(), [0.0] * 5) == 5
    assert follow(told, Trainer(), [0.0] * 5) == 1
    assert (alone.code, told.code) == (None, 143)


def test_rank_0_writes(tmp_path: Path) -> None:
    """The others compare the same numbers, so that all hold the same state."""
    saving = Checkpoints(tmp_path, load_config("demo", []), Snapshots(), Told())
    assert follow(saving, Trainer(), [1.0, 3.0, 2.0]) == 3
    saving.on_exception(Trainer(), module(), KeyboardInterrupt())
    assert saving.best == 3.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "best"), [("max", ["0", "0", "2", "2", "2"]), ("min", ["0", "1", "1", "1", "4"])])
def test_the_best_checkpoint(mode: str, best: list[str], tmp_path: Path) -> None:
    """The first iteration's, then that of each better value; not-a-number is no value."""
    trainer, rewards = Trainer(max_epochs=9), [1.0, 0.5, 3.0, float("nan"), 0.2]
    config = load_config("demo", ["best_checkpoint_metric=reward", f"best_checkpoint_mode={mode}", "save_every=2"])
    saving, trained = Checkpoints(tmp_path, config, Snapshots()), module()
    for done, (value, expected) in enumerate(zip(rewards, best, strict=True)):
        trainer.current_epoch, trained.line = done, {"reward": value}
        trained.averaged.module.mean.data.fill_(done)
        saving.on_train_epoch_end(trainer, trained)
        assert (tmp_path / "checkpoint_best.pth").read_text() == expected
        weights = torch.load(tmp_path / "generative_model_ema.npy", weights_only=True)
        assert weights["mean"].tolist() == [int(expected)] * 4
    assert (tmp_path / "checkpoint_latest.pth").read_text() == "3"
    saving.on_exception(trainer, trained, KeyboardInterrupt())
    assert (tmp_path / "checkpoint_latest.pth").read_text() == "4"  # whatever ends a run, its last iteration is saved
    resumed = Checkpoints(tmp_path, config, Snapshots())
    resumed.load_state_dict(saving.state_dict())
    trainer.current_epoch, trainer.should_stop, trained.line = 6, True, {"reward": 1.0}
    resumed.on_train_epoch_end(trainer, trained)
    assert (tmp_path / "checkpoint_best.pth").read_text() == best[-1]
    assert (tmp_path / "checkpoint_latest.pth").read_text() == "6"  # a run that is stopped saves


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_of_a_gpu_load_without_one(tmp_path: Path) -> None:
    trained = module()
    trained.averaged.to("cuda")
    trained.line = {"reward": 0.5}
    Checkpoints(tmp_path, load_config("demo", []), Snapshots()).on_train_epoch_end(Trainer(), trained)
    weights = torch.load(tmp_path / "generative_model_ema.npy", weights_only=True)
    assert {weight.device.type for weight in weights.values()} == {"cpu"}


def test_failures_that_did_not_happen_are_none(tmp_path: Path) -> None:
    config = load_config("demo", ["best_checkpoint_metric=failed_scf", "best_checkpoint_mode=min"])
    saving, trained = Checkpoints(tmp_path, config, Snapshots()), module()
    for line, best in (({"failed_scf": 3.0}, 3.0), ({"reward": 1.0}, 0.0), ({"failed_scf": 1.0}, 0.0)):
        trained.line = line
        saving.on_train_epoch_end(Trainer(), trained)
        assert saving.best == best


def test_the_learning_rate_follows_the_configured_schedule() -> None:
    config = TrainSection(
        learning_rate=0.5, scheduler="wsd", warmup_steps=4, min_lr_ratio=0.1, decay_fraction=0.5, beta1=0.8, beta2=0.9
    )
    made = module(config).configure_optimizers()
    scheduler = made["lr_scheduler"]["scheduler"]
    (factor,) = scheduler.lr_lambdas
    assert [factor(step) for step in (0, 3, 10, 15, 20)] == pytest.approx([0.25, 1, 1, 0.55, 0.1])
    assert scheduler.base_lrs == [0.5]
    assert made["optimizer"].defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        ({"best": 9.0}, "raw_reward", False),  # of a version that compared the normalised reward
        ({"best": 9.0}, "reward", True),
        ({"best": 9.0, "metric": "reward", "mode": "max"}, "reward", True),
        ({"best": 9.0, "metric": "reward", "mode": "max"}, "raw_reward", False),
        ({"best": 9.0, "metric": "reward", "mode": "min"}, "reward", False),
    ],
)
def test_a_best_value_of_another_number_does_not_count(before: dict, now: str, kept: bool, tmp_path: Path) -> None:
    saving = Checkpoints(tmp_path, load_config("demo", [f"best_checkpoint_metric={now}"]), Snapshots())
    saving.load_state_dict(before)
    assert (saving.best == 9.0) == kept
    assert saving.best_iteration is None  # those versions did not say whose it was


def test_a_best_reward_does_not_outlive_a_change_of_the_reward(tmp_path: Path) -> None:
    """Also of an early stop; where the reward is computed, and a number that is no reward, do not matter."""
    chosen = ["best_checkpoint_metric=reward", "early_stop_metric=reward", "early_stop_patience=3"]
    stable = ["best_checkpoint_metric=molecule_stability", "early_stop_metric=molecule_stability", chosen[2]]
    for words, change, kept in (
        (chosen, "reward.force_weight=2", False),
        (chosen, "reward.workers=7", True),
        (stable, "reward.force_weight=2", True),
    ):
        before, now = load_config("demo", words), load_config("demo", [*words, change])
        for old, new in (
            (Checkpoints(tmp_path, before, Snapshots()), Checkpoints(tmp_path, now, Snapshots())),
            (Limits(before), Limits(now)),
        ):
            old.best = 9.0
            new.load_state_dict(old.state_dict())
            assert (new.best == 9.0) == kept, (words, change)
