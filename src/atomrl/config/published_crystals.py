"""The keys of published experiments of crystals, and what each becomes here; `published.py` renames by these tables.

docs/published-crystals.md has them as one table, which is compared with `rows`.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from atomrl.config.published_typed import INSTEAD
from atomrl.util.errors import UserError
from atomrl.util.trees import dotted, texts

log = logging.getLogger(__name__)

MODULE, REWARD = "rl_module.", "rl_module.reward_fn."

GUIDANCE = f"{MODULE}sampling_configs.cfg_scale"
"""Scale of guidance: a published file has it for every backbone, so that only who types it means it."""

SECTIONS = frozenset(
    {
        *("callbacks", "data", "logger", "paths", "rl_module", "scheduler", "trainer", "task_name", "ckpt_path"),
        *("ldm_module", "vae_module", "predictor_module"),
    }
)
"""Keys on top of a published YAML, none of which is this package's; most are groups too."""

ALIASES: Mapping[str, str] = {
    "data.batch_size": "dataloader.sample_group_size",
    f"{MODULE}rl_configs.num_group_samples": "dataloader.each_prompt_sample",
    f"{MODULE}rl_configs.group_reward_norm": "train.group_reward_norm",
    f"{MODULE}rl_configs.clip_ratio": "train.clip_range",
    f"{MODULE}rl_configs.kl_weight": "train.kl_weight",
    f"{MODULE}rl_configs.entropy_weight": "train.entropy_weight",
    f"{MODULE}rl_configs.num_inner_batch": "train.num_inner_batch",
    f"{REWARD}normalize_fn": "train.reward_normalize_fn",
    f"{REWARD}eps": "train.reward_eps",
    f"{MODULE}sampling_configs.sampler": "model.sampler",
    f"{MODULE}sampling_configs.sampling_steps": "model.time_step",
    f"{MODULE}sampling_configs.eta": "model.eta",
    GUIDANCE: "model.guidance_scale",
    f"{MODULE}optimizer.lr": "train.learning_rate",
    f"{MODULE}optimizer.weight_decay": "train.weight_decay",
    f"{MODULE}optimizer.eps": "train.epsilon",
    "trainer.gradient_clip_val": "train.max_grad_norm",
    "logger.wandb.project": "wandb.project",
    "logger.wandb.name": "wandb.name",
}
"""{published key: ours}."""

UNSET_IF_NULL = frozenset({"trainer.gradient_clip_val"})
"""Whose null means what leaving them out means here."""


class Only(NamedTuple):
    """A key that says nothing with some values, and cannot have others.

    Attributes:
        values: that it may have.
        instead: what to do for another one.
    """

    values: tuple[Any, ...]
    instead: str = "leave it out"


LINKED = "${scheduler}"
"""What the published module says of its scheduler: that of the group."""

ONLY: Mapping[str, Only] = {
    f"{MODULE}_target_": Only(("src.rl_module.rl_module.RLModule",), "`atomrl train` has this one"),
    f"{REWARD}_target_": Only(("src.rl_module.reward.ReinforceReward",), "name what is your own in its `components`"),
    f"{REWARD}reward_type": Only(("dng",), "list its components in `rl_module.reward_fn.components`"),
    f"{MODULE}optimizer._target_": Only(("torch.optim.AdamW",)),
    f"{MODULE}optimizer._partial_": Only((True,)),
    f"{MODULE}scheduler": Only((LINKED, None), "give `train.scheduler`"),
    "scheduler._target_": Only(
        ("torch.optim.lr_scheduler.ConstantLR",),
        "give `train.scheduler` (constant, cosine, wsd) and `train.warmup_steps`",
    ),
    "scheduler._partial_": Only((True,)),
    "scheduler.factor": Only((1.0,), "give `train.learning_rate`"),
    "data._target_": Only(("src.data.datamodule.DataModule",)),
    "data.mace_features": Only((False,)),
    "data.mace_embeddings": Only((False,)),
    "trainer._target_": Only(("lightning.pytorch.trainer.Trainer",)),
    "trainer.devices": Only((1, "auto"), "start several processes by torchrun (docs/several-processes.md)"),
    "trainer.num_nodes": Only((1,), "start several processes by torchrun (docs/several-processes.md)"),
    "trainer.max_time": Only((None,), "give `max_time_hours`"),
    "trainer.accumulate_grad_batches": Only((1,), "give `train.gradient_accumulation_steps`"),
    "trainer.fast_dev_run": Only((False,), "give `dataloader.epoches=1`"),
    "ckpt_path": Only((None,), "give `save_path` and `resume=true`"),
    "ldm_module": Only((), "`atomrl pretrain ldm` trains a diffusion model"),
    "vae_module": Only((), "`atomrl pretrain vae` trains a VAE"),
    "predictor_module": Only((), "`atomrl pretrain predictor` trains a predictor"),
}
"""Published keys that only some values suit."""

UNUSED: Mapping[str, str] = {
    f"{MODULE}vae_ckpt_path": "the folder of `model.backbone` holds its VAE",
    f"{MODULE}sampling_configs.collect_trajectory": "",
    f"{MODULE}sampling_configs.progress": "",
    "data.data_dir": "sizes of the prompts come from the backbone's histogram",
    "data.dataset_type": "the same",
    "data.target_condition": "a conditional backbone says what it is asked for",
    "data.dataset.target_condition": "the same",
    "data.num_workers": "`reward.workers` is the number of processes that score",
    "data.pin_memory": "",
    "data.mace_precompute_params": "",
    "callbacks": "`best_checkpoint_metric`, `save_every`, `early_stop_metric` say what they do",
    "logger": "`wandb.enabled`, `log.tensorboard`, `log.csv` say where metrics go",
    "trainer": "Lightning's trainer is set up by `atomrl train`; an epoch is an iteration",
    "paths": "",
    "task_name": "",
    "extras": "",
    "tags": "",
}
"""Published keys, or sections of them, that change nothing here, and what does; one warning names those that stand
there, of those for which there is something to say."""

STEPS, INNER = "trainer.max_steps", "train.num_inner_batch"
"""Published number of optimizer steps, and ours of those in an iteration."""

PUBLISHED_INNER = f"{MODULE}rl_configs.num_inner_batch"
"""The published name of those in an iteration."""

HUB, NAMED = "hub", re.compile(r"\$\{hub:\s*([\w.-]+)\s*\}")
"""Section {name: folder} of what was imported, and how a published value names one."""

ON_THE_HUB = "hub:"
"""What the name of a model on the Hugging Face hub begins with, see `checkpoints.hub`; importing that takes torch."""

IMPORTED = "checkpoints"
"""Folder in which a name without an entry is looked for."""

REFERENCES: Mapping[str, tuple[str, str]] = {
    "mp-20": ("data/mp_20", "https://github.com/txie-93/cdvae/tree/main/data/mp_20"),
    "alex-mp-20": (
        "data/alex_mp_20",
        "alex_mp_20.zip in https://github.com/microsoft/mattergen/tree/main/data-release/alex-mp",
    ),
}
"""Published reference sets: their folders here, and where their files come from."""

DNG = tuple(
    {"_target_": f"src.rl_module.components.{name}Reward", "weight": weight, "normalize_fn": normalize}
    for name, weight, normalize in (
        ("Creativity", 1.0, None),
        ("Energy", 1.0, "norm"),
        ("StructureDiversity", 0.1, "norm"),
        ("CompositionDiversity", 1.0, "norm"),
    )
)
"""Components of a published experiment that lists none."""

PREDICTOR = "src.vae_module.predictor_module.PredictorModule.load_from_checkpoint"
"""What a published component makes its predictor by."""

FULL: Mapping[str, Any] = {
    "domain": "crystals",
    "model": {"time_step": 50, "sampler": "ddim", "eta": 1.0},
    "reward": {"components": [*DNG]},
    "dataloader": {"sample_group_size": 256, "each_prompt_sample": 1, "epoches": 5000},
    "train": {
        "objective": "grpo",
        "group_reward_norm": False,
        "reward_normalize_fn": "std",
        "reward_eps": 1e-4,
        "clip_range": 0.001,
        "kl_weight": 1.0,
        "entropy_weight": 1e-5,
        "log_prob_reduction": "mean",
        "num_inner_batch": 2,
        "learning_rate": 1e-5,
        "weight_decay": 0.0,
        "scheduler": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 1.0,
    },
}
"""What a published experiment means by what it leaves out."""


def is_experiment(tree: Mapping[str, Any]) -> bool:
    """Whether a composed tree is a published experiment, and not one of this package with some published keys."""
    return MODULE.rstrip(".") in tree


def wrapped(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree whose top is the published module itself, as a YAML of the group has it, below its key."""
    module = MODULE.rstrip(".")
    if tree.get("_target_") not in ONLY[f"{MODULE}_target_"].values:
        return dict(tree)
    beside = {key for key, value in tree.items() if key in SECTIONS | {HUB} and value != LINKED}
    inside = {key: value for key, value in tree.items() if key not in beside}
    return {**{key: tree[key] for key in beside}, module: inside}


def completed(tree: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment in our names, with what it does not say.

    Args:
        tree: in published names.
        found: {our key: value} of what stands in it.

    Raises:
        UserError: the number of optimizer steps is none.
    """
    full = dict(dotted(FULL))
    trainer = tree.get("trainer")
    steps = trainer.get("max_steps") if isinstance(trainer, Mapping) else None
    if steps is not None:
        full["dataloader.epoches"] = _iterations(steps, found.get(INNER, full[INNER]))
    return {**full, **found, "needs": {**_needs(tree, found), **found.get("needs", {})}}


def without_hub(tree: Any, hub: Mapping[str, Any]) -> Any:
    """A tree or text in which folders stand for `${hub:NAME}`."""
    if isinstance(tree, Mapping):
        return {key: without_hub(value, hub) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_hub(value, hub) for value in tree]
    return NAMED.sub(lambda match: _folder_of(match[1], hub), tree) if isinstance(tree, str) else tree


def is_looked_up(key: str, value: Any) -> bool:
    """Whether a published value is to be found elsewhere, as `${paths.data_dir}`, and is read here."""
    return value != LINKED and any("${" in text for text in texts(value)) and not is_unused(key)


def is_unused(key: str) -> bool:
    """Whether a published key changes nothing here."""
    return key not in (*ALIASES, *ONLY, *CONVERTED) and any(f"{key}.".startswith(f"{name}.") for name in UNUSED)


def require_known(key: str) -> None:
    """Raise UserError for a key in a published section that no published experiment has."""
    section = key.partition(".")[0]
    known = [name for name in (*ALIASES, *ONLY, *CONVERTED, *UNUSED) if name.startswith(f"{section}.")]
    if not known or key in known or is_unused(key):
        return
    near = difflib.get_close_matches(key, known, n=1)
    raise UserError(f"{key}: no published key that is known here{f'; did you mean {near[0]}?' if near else ''}")


def warn_of_unused(keys: list[str]) -> None:
    """Name the keys that change nothing, all in one warning."""
    names = {next(name for name in UNUSED if f"{key}.".startswith(f"{name}.")) for key in keys}
    if named := sorted(name for name in names if UNUSED[name]):
        log.warning(f"published keys that change nothing here: {', '.join(named)}; see docs/published-crystals.md")


def written(value: Any) -> str:
    """A value as a YAML and an override have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def rows() -> Iterator[tuple[str, str]]:
    """The table of all keys: the published one, and what becomes of it."""
    yield from ((f"`{key}`", f"`{ours}`") for key, ours in ALIASES.items())
    yield from ((f"`{key}`", f"`{ours}`: {said}") for key, (ours, _, said) in CONVERTED.items())
    for key, only in ONLY.items():
        values = ", ".join(f"`{written(value)}`" for value in only.values)
        yield f"`{key}`", f"{f'only {values}; else ' if values else 'refused: '}{only.instead}"
    yield from (
        (f"`{key}`", f"changes nothing; on the command line it is refused: {instead}")
        for key, instead in INSTEAD.items()
    )
    yield from ((f"`{key}`", f"changes nothing{f': {said}' if said else ''}") for key, said in UNUSED.items())


def _folder(key: str, value: Any) -> str:
    """A model's folder: that beside a published checkpoint, of its name without the ending."""
    if not isinstance(value, str) or not value or f"${{{HUB}:" in value:  # what is left after `without_hub`
        raise UserError(f"{key}={value}: must be the path of a checkpoint, a folder or ${{hub:NAME}}")
    return value.removesuffix(".ckpt")


def _reference(key: str, value: Any) -> str:
    """The folder of a published reference set; any other name is a folder."""
    if not isinstance(value, str):
        raise UserError(f"{key}={value}: must be one of {', '.join(REFERENCES)}, or a folder")
    return REFERENCES.get(value, (value, ""))[0]


def _components(key: str, value: Any) -> Any:
    """Components whose predictors are folders."""
    if not isinstance(value, list):
        return value
    return [
        {name: _predictor(key, inner) for name, inner in entry.items()} if isinstance(entry, Mapping) else entry
        for entry in value
    ]


def _predictor(key: str, value: Any) -> Any:
    """The folder of a predictor that a published mapping would load; another value as it is."""
    if not isinstance(value, Mapping) or value.get("_target_") != PREDICTOR:
        return value
    if strange := sorted(set(value) - {"_target_", "checkpoint_path", "map_location"}):
        raise UserError(f"{key}: a predictor with {', '.join(strange)}: only checkpoint_path is known here")
    return _folder(f"{key}: checkpoint_path", value.get("checkpoint_path"))


def _device(key: str, value: Any) -> str:
    """Our device of Lightning's accelerator."""
    devices = {"cpu": "cpu", "gpu": "auto", "cuda": "auto", "auto": "auto"}
    if value not in devices:
        raise UserError(f"{key}={value}: must be one of {', '.join(devices)}")
    return devices[value]


def _alone(key: str, value: Any) -> int:
    """Refuses the number of optimizer steps where nothing says how many an iteration has."""
    raise UserError(
        f"{key}={value}: give dataloader.epoches, iterations; each has train.num_inner_batch optimizer steps"
    )


CONVERTED: Mapping[str, tuple[str, Callable[[str, Any], Any], str]] = {
    f"{MODULE}ldm_ckpt_path": (
        "model.backbone",
        _folder,
        "the folder that `atomrl import` made, of the checkpoint's name without `.ckpt`, or what `hub` says",
    ),
    f"{REWARD}reference_dataset": (
        "reward.reference_dataset",
        _reference,
        ", ".join(f"`{name}` is `{folder}`" for name, (folder, _) in REFERENCES.items()) + "; else a folder",
    ),
    f"{REWARD}components": (
        "reward.components",
        _components,
        f"with the same classes; a predictor by `{PREDICTOR}` is the folder of its `checkpoint_path`, as above",
    ),
    "trainer.accelerator": ("device", _device, "`gpu` is `auto`"),
    STEPS: (
        "dataloader.epoches",
        _alone,
        "over `train.num_inner_batch`, rounded up; refused on top of a YAML of this package",
    ),
}
"""{published key: ours, what makes our value of its, and how in words}."""


def _iterations(steps: Any, inner: Any) -> int:
    """Iterations of so many optimizer steps."""
    if not isinstance(steps, int) or not isinstance(inner, int) or steps < 1 or inner < 1:
        raise UserError(f"{STEPS}={steps} with {INNER}={inner}: both must be whole numbers above 0")
    return ceil(steps / inner)


def _folder_of(name: str, hub: Mapping[str, Any]) -> str:
    """Where what was imported under a name is."""
    folder = hub.get(name, f"{IMPORTED}/{name}")
    if not isinstance(folder, str):
        raise UserError(f"{HUB}.{name}={folder}: must be the folder that `atomrl import chemeleon2` made")
    if folder.startswith(ON_THE_HUB):
        raise UserError(
            f"{HUB}.{name}={folder}: must be a folder on this machine; a model on the Hugging Face hub is given as "
            f"model.backbone={folder}"
        )
    return folder


def _needs(tree: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """What the experiment cannot start without, and where it comes from."""
    hub, needs = tree.get(HUB) or {}, dict[str, str]()
    for text in texts(tree):
        for name in NAMED.findall(text):
            folder = _folder_of(name, hub)
            needs[folder] = (
                f"the published {name}: import its checkpoint, atomrl import chemeleon2 FILE --output {folder}, or say "
                f"where it is, {HUB}.{name}=FOLDER"
            )
        if PurePosixPath(text).suffix == ".ckpt" and "${" not in text:
            needs[text.removesuffix(".ckpt")] = (
                f"import it: atomrl import chemeleon2 {text} --output {text.removesuffix('.ckpt')}"
            )
    for name, (folder, source) in REFERENCES.items():
        if found.get("reward.reference_dataset") == folder:
            files = f"{name} in the field's CSV format, from {source}"
            needs |= {f"{folder}/train.csv": files, f"{folder}/val.csv": files}
            needs[f"{folder}/hull.json"] = f"CHGNet's hull of the set, made by: atomrl data reference {folder}"
    return needs
