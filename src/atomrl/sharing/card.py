"""The model card of shared weights, README.md: written from what the run and its evaluation say, from nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml

from atomrl.checkpoints.hub import PREFIX, hub_name, is_hub_name
from atomrl.checkpoints.shipped import BACKBONES, located
from atomrl.config import Config
from atomrl.config.objects import objects_of
from atomrl.sharing.evaluated import Evaluated
from atomrl.training.changed_settings import changes
from atomrl.user_code.trust import foreign_code

LEARNED = ("reward", "train", "filters", "dataloader", "model", "validation", "seed")
"""Sections and keys of a configuration that say what was learned from what."""

TAGS = {"molecules": ("molecules", "chemistry"), "crystals": ("crystals", "materials-science")}


@dataclass(frozen=True)
class Shared:
    """What a card is written from; nothing in it names a folder of the machine that made it.

    Attributes:
        repository: `user/name`.
        licence: one of `licences.LICENCES`.
        noun: of samples.
        domain: as in `Config.domain`.
        format: ending of the usual file of samples.
        sizes: histogram of atoms per structure in the training set.
        parameters: numbers in the model.
        card: what describes the weights, model.json.
        config: of the run; None: no run's configuration lies beside the weights.
        iterations: that the weights had.
        evaluated: their evaluation; None: none was made.
        conditioned: names of what it is asked for.
    """

    repository: str
    licence: str
    noun: str
    domain: str
    format: str
    sizes: Mapping[int, int]
    parameters: int
    card: Mapping[str, Any]
    config: Config | None
    iterations: int | None
    evaluated: Evaluated | None
    conditioned: tuple[str, ...]

    @property
    def start(self) -> str | None:
        """Name of the model that training started from, as far as it is known."""
        if self.config is not None:
            return self.config.model.backbone
        found = self.card.get("started_from")
        return None if found is None else str(found)


def card_text(shared: Shared) -> str:
    """The whole card, with the block of YAML that the hub reads."""
    name = shared.repository.partition("/")[2]
    what = f"A diffusion model of {shared.noun}"
    how = ", trained further by reinforcement learning with" if shared.config is not None else ", made with"
    parts = [
        f"---\n{yaml.safe_dump(front_matter(shared), sort_keys=False)}---\n",
        f"# {name}\n\n{what}{how} atomrl {version('atomrl')}.\n\n{_facts(shared)}",
        _use(shared),
        _learning(shared),
        _evaluation(shared),
        _limits(shared),
        _licence(shared),
    ]
    return "\n".join(part for part in parts if part)


def front_matter(shared: Shared) -> dict[str, Any]:
    """What the hub reads: licence, library, tags, and the model that it was made of if that is on the hub."""
    tags = ["diffusion", *TAGS[shared.domain], *(["reinforcement-learning"] if shared.config is not None else [])]
    found: dict[str, Any] = {"license": shared.licence, "library_name": "atomrl", "tags": tags}
    if shared.start is not None and is_hub_name(shared.start):
        found |= {"base_model": hub_name(shared.start).repository, "base_model_relation": "finetune"}
    return found


def _facts(shared: Shared) -> str:
    """The table of what it is and how it came about."""
    sizes = sorted(size for size, count in shared.sizes.items() if count)
    asked = f", asked for {', '.join(shared.conditioned)}" if shared.conditioned else ""
    rows = {
        "samples": f"{shared.noun} of {sizes[0]} to {sizes[-1]} atoms{asked}",
        "started from": "not recorded" if shared.start is None else f"`{shared.start}`",
        "data": _data(shared),
        **_run_facts(shared),
        "parameters": f"{shared.parameters:,}",
        "licence": shared.licence,
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {said} |\n" for name, said in rows.items())


def _run_facts(shared: Shared) -> dict[str, str]:
    """Rows about the training by reinforcement."""
    config = shared.config
    if config is None:
        return {}
    loader, objective = config.dataloader, config.train.objective
    each = loader.sample_group_size * loader.each_prompt_sample
    done = shared.iterations
    seeds = [] if shared.evaluated is None else shared.evaluated.seeds
    evaluated = f"; of the evaluation's samples {', '.join(map(str, seeds))}" if seeds else ""
    return {
        "objective": f"`{objective if isinstance(objective, str) else objective.get('_target_')}`",
        "reward": _reward(config),
        "iterations": "not recorded" if done is None else f"{done}, {done * each:,} samples in all",
        "seeds": f"of the training {config.seed}, one run{evaluated}",
        "walk": f"T = {config.model.time_step} transitions in training",
        "weights": f"averaged over the iterations, decay {config.train.ema_decay:g}",
    }


def _reward(config: Config) -> str:
    """What was rewarded, in a few words; the options stand below."""
    section = config.reward.model_dump()
    named = [
        f"`{entry.get('_target_')}`" if isinstance(entry, Mapping) else f"`{entry}`"
        for entry in section.get("components") or []
    ]
    return ", ".join(named) or f"`{section['type']}`"


def _data(shared: Shared) -> str:
    """What the model had learned from before; of a shipped model what its own card says."""
    if shared.start in BACKBONES:
        card = (located(str(shared.start)) / "README.md").read_text("utf-8")
        if found := re.search(r"^\| data \| ([^|]+?) \|", card, re.MULTILINE):
            plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", found[1])
            return f"of `{shared.start}`: {plain}"
    recorded = shared.card.get("data")
    if recorded:
        return recorded if isinstance(recorded, str) else ", ".join(f"{key} {value}" for key, value in recorded.items())
    return "not recorded here" + ("" if shared.start is None else f"; see `{shared.start}`")


def _use(shared: Shared) -> str:
    """The command that samples."""
    where = f"{PREFIX}{shared.repository}"
    return (
        "## Use\n\nWith atomrl and its extra `hub`:\n\n"
        f"```bash\natomrl sample --backbone {where} -n 10 --output samples.{shared.format}\n```\n\n"
        f"`{where}` stands wherever a backbone is named; with `@` and a commit after it, it always names these "
        "weights. Loading runs no code of this repository.\n"
    )


def _learning(shared: Shared) -> str:
    """What the run set otherwise than by default."""
    if shared.config is None:
        return ""
    found = {
        key: after
        for key, (_, after) in changes(type(shared.config)(), shared.config).items()
        if key.partition(".")[0] in LEARNED
    }
    listed = yaml.safe_dump(found, sort_keys=True, default_flow_style=False) if found else "# nothing\n"
    return (
        "## Reward and objective\n\nWhat the run set otherwise than by default; all of it is in `config.yaml`.\n\n"
        f"```yaml\n{listed}```\n"
    )


def _evaluation(shared: Shared) -> str:
    """The tables, or that there are none."""
    if shared.evaluated is None:
        return (
            "## Evaluation\n\nNo evaluation was made: nothing here says how good the samples are. "
            f"`atomrl evaluate --base {PREFIX}{shared.repository}` makes one.\n"
        )
    tables = re.sub(r"^(#+ )", r"#\1", shared.evaluated.text.strip(), flags=re.MULTILINE)
    return f"## Evaluation\n\nThe same for programs: `evaluation.json`.\n\n{tables}\n"


def _limits(shared: Shared) -> str:
    """What the numbers do not say."""
    said = ["It draws sizes as they are distributed among the structures that it first learned from, and no others."]
    if shared.config is not None:
        said.append("One training with one seed: intervals are over samples, and say nothing about other seeds.")
        if shared.config.reward.type == "dummy":
            said.append("The reward was the dummy of smoke tests: what was learned means nothing.")
        if objects_of(shared.config):
            said.append(
                "Its reward, force field or objective was an object of a Python program, which no file holds: "
                "`atomrl evaluate --base` judges the weights, not by the run's own reward."
            )
        if code := foreign_code(shared.config.code):
            names = ", ".join(f"`{name}`" for name in code)
            said.append(
                f"The run used code that is neither atomrl's nor in this repository: {names}. The weights need none of "
                "it; an evaluation by the run's own reward does, and `--trust-code`."
            )
    if shared.evaluated is not None:
        main = shared.evaluated.main
        said.append(
            f"Energies and forces in the table are by {main['evaluator']}; no experiment, and no other method than the "
            "tables name, stands behind them."
        )
        if main["rewarded"]:
            said.append(
                "The training was paid for the rows marked as rewarded: better values there are to be expected."
            )
    said.append("Paths in `config.yaml` are cut to their last part; what they name is not in this repository.")
    return "## Limits\n\n" + "".join(f"- {sentence}\n" for sentence in said)


def _licence(shared: Shared) -> str:
    """Of the weights, and of what they rest on."""
    rest = f" Those of `{shared.start}` are Apache-2.0." if shared.start in BACKBONES else ""
    own = "Data and programs that made them have licences of their own."
    return f"## Licence\n\nThe weights: {shared.licence}.{rest} {own}\n"
