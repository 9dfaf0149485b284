"""What a user gets wrong in a pre-training ends in one line, before anything is trained or written."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_crystal_set
import torch
from small_pretraining import SMALL

from atomrl.cli import main
from atomrl.data.packed_crystals import load_splits
from atomrl.data.prototype_set import CARD_FILE, SET_FILE
from atomrl.networks.crystal_vae import CrystalVAEConfig, LossWeights
from atomrl.pretraining import session as pretrain_session
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.crystal_run import pretrain_ldm, pretrain_vae
from atomrl.pretraining.edm_run import pretrain_edm
from atomrl.pretraining.predictor_run import pretrain_predictor
from atomrl.pretraining.saving import checkpoint_to_continue
from atomrl.pretraining.session import Session
from atomrl.pretraining.vae import PretrainVAE
from atomrl.util.errors import UserError

TINY = ["model.width=16", "model.heads=2", "model.feedforward=32", "model.layers=1", "model.latent=4"]


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_crystal_set.write(tmp_path_factory.mktemp("data") / "set")


def message(command: Callable[[list[str]], Path], options: list[str]) -> str:
    """The one line of a refusal."""
    with pytest.raises(UserError) as caught:
        command(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        (pretrain_vae, "train.steps=0", "train.steps=0: must be at least 1"),
        (pretrain_vae, "train.decay_steps=-1", "train.decay_steps=-1: must be at least 0"),
        (pretrain_vae, "train.warmup=-1", "train.warmup=-1: must be at least 0"),
        (pretrain_vae, "train.batch_size=0", "train.batch_size=0: must be at least 1"),
        (pretrain_vae, "train.lr=-1", "train.lr=-1.0: must be positive"),
        (pretrain_vae, "train.lr=nan", "train.lr=nan: must be positive"),
        (pretrain_vae, "train.weight_decay=-1", "train.weight_decay=-1.0: must be at least 0"),
        (pretrain_vae, "train.max_grad_norm=0", "train.max_grad_norm=0.0: must be positive"),
        (pretrain_vae, "train.ema_decay=2", "train.ema_decay=2.0: must lie between 0 and 1"),
        (pretrain_vae, "train.seed=-1", "train.seed=-1: must lie between 0 and"),
        (pretrain_vae, "train.seed=36893488147419103232", "must lie between 0 and"),
        (pretrain_vae, "val_every=0", "val_every=0: must be at least 1"),
        (pretrain_vae, "val_batches=-1", "val_batches=-1: must be at least 0"),
        (pretrain_vae, "log_every=-1", "log_every=-1: must be at least 0"),
        (pretrain_vae, "threads=0", "threads=0: must be at least 1"),
        (pretrain_vae, "threads=5000", "threads=5000: must be at least 1 and at most 1024"),
        (pretrain_vae, "train.lr=inf", "train.lr=inf: must be positive and at most 1"),
        (pretrain_vae, "checkpoint_minutes=0", "checkpoint_minutes=0.0: must be positive"),
        (pretrain_vae, "precision=foo", "precision=foo: must be one of 32-true, bf16-mixed, 16-mixed"),
        (pretrain_vae, "device=tpu", "device=tpu: must be one of auto, cpu, cuda"),
        (pretrain_vae, "match_structures=0", "match_structures=0: must be at least 1"),
        (pretrain_vae, "card_structures=0", "card_structures=0: must be at least 1"),
        (pretrain_vae, "weights.kl=-1", "weights.kl=-1.0: must be at least 0"),
        (pretrain_vae, "model.heads=0", "model.heads=0: must be at least 1"),
        (pretrain_vae, "model.width=[3", "pretrain vae: model.width=[3: Hydra cannot read this value"),
        (pretrain_vae, "train.stpes=3", "pretrain vae: unknown configuration key train.stpes: did you mean steps?"),
        (pretrain_vae, "mdoel.width=3", "did you mean model?"),
        (pretrain_vae, "train.steps", "pretrain vae: 'train.steps' is not of the form key=value"),
        (pretrain_ldm, "model.depth=0", "model.depth=0: must be at least 1"),
        (pretrain_ldm, "model.hidden=0", "model.hidden=0: must be at least 1"),
        (pretrain_predictor, "card_structures=0", "card_structures=0: must be at least 1"),
        (pretrain_predictor, "val_every=0", "val_every=0: must be at least 1"),
        (pretrain_edm, "model.layers=0", "model.layers=0: must be at least 1"),
        (pretrain_edm, "model.edge_hidden=0", "model.edge_hidden=0: must be at least 1"),
        (pretrain_edm, "model.aggregation=max", "aggregation"),
        (pretrain_edm, "model.normalization_factor=0", "normalization_factor=0.0: must be positive"),
        (
            pretrain_edm,
            "model.normalize_factors=[1,4,0]",
            "normalize_factors=0.0: must be positive",
        ),
        (pretrain_edm, "model.elements=[H,C,N]", "model.elements=['H', 'C', 'N']: QM9 also holds O, F"),
        (
            pretrain_edm,
            "model.context_features=2",
            "model.context_features=2: context=[...] names the columns",
        ),
        (pretrain_edm, "context=polarity", "context=polarity: QM9's properties are alpha, mu"),
        (pretrain_edm, "context=[alpha,alpha]", "context=alpha, alpha: each property once"),
        (pretrain_edm, "half=third", "half=third: must be one of first, second"),
        (pretrain_edm, "quality_every=-1", "quality_every=-1: must be at least 0"),
        (pretrain_edm, "quality_samples=0", "quality_samples=0: must be at least 1"),
        (pretrain_edm, "device=nowhere", "device=nowhere: must be one of"),
        (pretrain_edm, "held_out=0.2", "pretrain edm: held_out=0.2 changes nothing with data=qm9: set data=my.sdf too"),
        (pretrain_edm, "split_seed=1", "split_seed=1 changes nothing with data=qm9: set data=my.sdf too"),
        (pretrain_vae, "save_path=", "pretrain vae: save_path= names no folder: give one, or leave it out"),
        (pretrain_ldm, "drop_prob=0.3", "drop_prob=0.3 changes nothing with conditions=[]: set conditions=[...] too"),
    ],
)
def test_options_that_cannot_be(command: Callable[[list[str]], Path], option: str, words: str, tmp_path: Path) -> None:
    assert words in message(command, [f"save_path={tmp_path / 'run'}", option])
    assert not (tmp_path / "run").exists()


def test_half_precision_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "precision=16-mixed needs a GPU" in message(pretrain_vae, ["device=cpu", "precision=16-mixed"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU" in message(pretrain_vae, ["device=cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pretrain_session.check_device(Session(precision="16-mixed"))


@pytest.mark.parametrize(
    ("device", "gpu", "accelerator"), [("auto", True, "gpu"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_one_device_is_used(device: str, gpu: bool, accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(pretrain_session.lightning, "Trainer", SimpleNamespace)
    trainer = pretrain_session._trainer(Session(device=device), [])
    assert (trainer.accelerator, trainer.devices) == (accelerator, 1)


def test_several_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "vae", f"save_path={tmp_path / 'run'}"])
    assert ended.value.code == 2
    assert "WORLD_SIZE=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["init=PLACE/nope.ckpt"], "no such file; give the last.ckpt of another pre-training"),
        (["init=PLACE"], "no such file"),
        (["train.batch_size=7"], "batches of 7 out of 6 structures"),
        (["save_path=PLACE/file/run"], "cannot create save_path="),
        (["save_path=PLACE/file"], "cannot create save_path="),
        (["save_path=PLACE/logged"], "cannot create the logs of save_path="),
    ],
)
def test_places_that_cannot_be(options: list[str], words: str, crystals: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "logged").mkdir()
    (tmp_path / "logged" / "log").write_text("")
    given = [*SMALL, *TINY, f"data={crystals}", f"save_path={tmp_path / 'run'}"]
    assert words in message(pretrain_vae, [*given, *(option.replace("PLACE", str(tmp_path)) for option in options)])
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "logged", "log"}


def vae(width: int = 16) -> PretrainVAE:
    shape = CrystalVAEConfig(width=width, heads=2, feedforward=32, layers=1, latent=4)
    return PretrainVAE(shape, PretrainConfig(), LossWeights())


WHOLE = {"optimizer_states": [], "lr_schedulers": [], "loops": {}, "global_step": 10, "hyper_parameters": {}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"nothing", "cannot be read|was not loaded"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ({"state_dict": {}}, "is not the checkpoint of a pre-training"),
        ({**WHOLE, "state_dict": vae(width=32).state_dict()}, r"has shape \(100, 32\), the model needs \(100, 16\); "),
        ({**WHOLE, "state_dict": vae().state_dict(), "hyper_parameters": {"targets": ["gap"]}}, r"predicts \['gap'\]"),
        (
            {**WHOLE, "state_dict": vae().state_dict(), "hyper_parameters": {"model": {"width": 16, "heads": 4}}},
            r"last\.ckpt began with model\.heads=4, not model\.heads=2; ",
        ),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_checkpoints_that_cannot_be_continued(content: bytes | dict, words: str, own: bool, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    session = Session(save_path=str(tmp_path)) if own else Session(save_path=str(tmp_path / "run"), init=str(path))
    with pytest.raises(UserError, match=words) as caught:
        checkpoint_to_continue(vae(), session, session.learned_from)
    assert "\n" not in str(caught.value)
    if not isinstance(content, bytes):
        assert ("another save_path" if own else "init takes the last.ckpt") in str(caught.value)


def test_weights_that_are_not_trained_say_of_what_they_are(tmp_path: Path) -> None:
    """Beside adapters those of a backbone are frozen, not the VAE's alone."""
    module, path = vae(), tmp_path / "last.ckpt"
    torch.save({**WHOLE, "state_dict": vae().state_dict()}, path)
    module.network.quant_conv.requires_grad_(False)
    with pytest.raises(UserError, match=r"was trained on another backbone; init takes"):
        checkpoint_to_continue(module, Session(save_path=str(tmp_path / "run"), init=str(path)), {})


def test_which_checkpoint_is_continued(tmp_path: Path) -> None:
    own, other = tmp_path / "run" / "last.ckpt", tmp_path / "other.ckpt"
    begun = {**WHOLE, "state_dict": vae().state_dict()}
    assert checkpoint_to_continue(vae(), Session(save_path=str(own.parent)), {}) is None
    torch.save(begun, other)
    session = Session(save_path=str(own.parent), init=str(other))
    assert checkpoint_to_continue(vae(), session, session.learned_from) == other
    session = session.changed(train=PretrainConfig(steps=10))
    with pytest.raises(UserError, match=r"is at step 10, and train\.steps=10 counts those too: raise it"):
        checkpoint_to_continue(vae(), session, session.learned_from)
    own.parent.mkdir()
    torch.save(begun, own)
    # a finished run, given again, only writes its weights anew
    assert checkpoint_to_continue(vae(), session, session.learned_from | {"content": "1a"}) == own  # not said before
    torch.save({**begun, "learned_from": {"content": "2b"}}, own)
    with pytest.raises(UserError, match="began with content=2b, not content=1a; give the options that the run in"):
        checkpoint_to_continue(vae(), session, session.learned_from | {"content": "1a"})


@pytest.mark.parametrize("name", ["model.json", "config.yaml"])
def test_a_model_from_elsewhere_is_not_written_over(name: str, tmp_path: Path) -> None:
    """An imported one, or a run of `atomrl train`."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=r"holds a model and no last\.ckpt to continue from, .*: give another folder"):
        checkpoint_to_continue(vae(), Session(save_path=str(tmp_path)), {})


def test_init_continues_what_the_weights_were_trained_as(tmp_path: Path) -> None:
    """On other data, but not as a model of another property, nor with adapters that count otherwise."""
    path = tmp_path / "last.ckpt"
    learned = {"data": "qm9", "context": ["alpha"], "lora": {"rank": 2, "alpha": None}}
    torch.save({**WHOLE, "state_dict": vae().state_dict(), "learned_from": learned}, path)
    session = Session(save_path=str(tmp_path / "run"), init=str(path))
    assert checkpoint_to_continue(vae(), session, {**learned, "data": "my.sdf"}) == path
    with pytest.raises(UserError, match=r"began with context=\['alpha'\], not context=\['mu'\]; init takes the last"):
        checkpoint_to_continue(vae(), session, {**learned, "context": ["mu"]})
    with pytest.raises(UserError, match=r"began with lora=.*'alpha': None}, not lora=.*'alpha': 1.0}; init takes"):
        checkpoint_to_continue(vae(), session, {**learned, "lora": {"rank": 2, "alpha": 1.0}})


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ('{"sha256": "ab', "prototypes.json cannot be read"),
        ("{}", "lacks the entry 'sha256'"),
        ('{"sha256": "ab"}', "lacks the entry 'prototypes'"),
        ("[]", "holds list, not a mapping"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_crystal_sets_with_a_damaged_card(card: str, words: str, crystals: Path, tmp_path: Path) -> None:
    (tmp_path / SET_FILE).write_bytes((crystals / SET_FILE).read_bytes())
    (tmp_path / CARD_FILE).write_text(card)
    with pytest.raises(UserError, match=words) as caught:
        load_splits(str(tmp_path))
    assert "\n" not in str(caught.value)


STOPPED = "stopped before the first checkpoint; start again with the same command: save_path=RUN"


def signals(count: int) -> Callable[..., None]:
    def press(*_: object) -> None:
        for _each in range(count):
            signal.raise_signal(signal.SIGINT)

    return press


def out_of_memory(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)
    raise RuntimeError("CUDA out of memory")


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("losses", "error", "said"),
    [
        (signals(2), KeyboardInterrupt, ["", STOPPED]),
        (out_of_memory, RuntimeError, []),
    ],
    ids=["twice", "an error of its own"],
)
def test_what_ends_a_step_before_its_end(
    losses: Callable[..., None],
    error: type[BaseException],
    said: list[str],
    crystals: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second Ctrl-C does not wait; an error keeps its message, whoever pressed Ctrl-C before it."""
    monkeypatch.setattr(PretrainVAE, "losses", losses)
    with pytest.raises(error, match="out of memory" if error is RuntimeError else None):
        pretrain_vae([*SMALL, *TINY, f"data={crystals}", f"save_path={tmp_path}", "train.steps=2"])
    assert capsys.readouterr().out.splitlines() == [line.replace("RUN", str(tmp_path)) for line in said]
    assert not (tmp_path / "last.ckpt").exists()


def test_a_batch_system_may_end_a_run(
    crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM: the step is finished and saved, the exit code is the shell's for it."""
    honest = PretrainVAE.losses

    def losses(*arguments: object) -> dict[str, torch.Tensor]:
        signal.raise_signal(signal.SIGTERM)
        return honest(*arguments)

    monkeypatch.setattr(PretrainVAE, "losses", losses)
    with pytest.raises(SystemExit) as ended:
        pretrain_vae([*SMALL, *TINY, f"data={crystals}", f"save_path={tmp_path}", "train.steps=3"])
    assert ended.value.code == 143
    assert f"stopped; continue with the same command: save_path={tmp_path}" in capsys.readouterr().out
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 1
