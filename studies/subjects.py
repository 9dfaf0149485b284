"""What a study's samples are: the words, curves and tables of its report that no other kind of sample has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlotPanel:
    """One small plot of the training curves.

    Attributes:
        key: of metrics.jsonl.
        title: with its unit.
        scale: factor on the logged number.
    """

    key: str
    title: str
    scale: float = 1.0


@dataclass(frozen=True)
class Further:
    """A table beside the main one of every evaluation.

    Attributes:
        title: of `evaluation_<title>.json`.
        key: of the training's configuration that asks for it; a value that is 0 or null does not.
        heading: of its part of the report.
        package: that it needs and `make venv` does not install, and
        extra: of atomrl that installs it.
    """

    title: str
    key: str
    heading: str
    package: str | None = None
    extra: str | None = None

    @property
    def file(self) -> str:
        """Beside evaluation.json."""
        return f"evaluation_{self.title.replace(' ', '_')}.json"


@dataclass(frozen=True)
class Subject:
    """One kind of sample.

    Attributes:
        noun, one: what samples are called, and a single one.
        physics: what the evaluator computes.
        panels: of the training curves; those that are not logged are left out.
        cost: metrics that a reward can be bought with,
        cost_note: in words.
        intervals: how the intervals of one column are made.
        best_of: what is to be said about best-of-N of such samples.
        further: tables that an evaluation can have beside the main one.
    """

    noun: str
    one: str
    physics: str
    panels: tuple[PlotPanel, ...]
    cost: tuple[str, ...]
    cost_note: str
    intervals: str
    best_of: str = ""
    further: tuple[Further, ...] = ()


MOLECULES = Subject(
    noun="molecules",
    one="molecule",
    physics="forces and energies",
    panels=(
        PlotPanel("reward", "reward, mean"),
        PlotPanel("rms_force", "RMS force, mean of evaluated, eV/Å"),
        PlotPanel("molecule_stability", "molecule stability, %", 100),
        PlotPanel("rdkit_validity", "validity (RDKit), %", 100),
        PlotPanel("kl_loss", "KL to the initial model (loss term / weight)"),
    ),
    cost=("uniqueness", "validity_x_uniqueness", "novelty", "valid_unique_novel"),
    cost_note="Diversity, novelty and composition.",
    intervals="bootstrap; jackknife for uniqueness and novelty",
    further=(
        Further("relaxed", "evaluation.relaxed", "Relaxed by GFN2-xTB"),
        Further("PoseBusters", "evaluation.posebusters", "By PoseBusters", package="posebusters", extra="eval"),
        Further("second judge", "evaluation.second_judge", "By a second judge", package="torchani", extra="ani"),
    ),
)

CRYSTALS = Subject(
    noun="crystals",
    one="crystal",
    physics="energies above hull",
    panels=(  # no total reward: its normalised parts have the same mean in every iteration
        PlotPanel("raw_creativity", "creativity, mean"),
        PlotPanel("e_above_hull", "energy above hull, mean of evaluated, eV/atom"),
        PlotPanel("unique", "unique in the iteration, % of sound cells", 100),
        PlotPanel("novel", "novel, % of sound cells", 100),
        PlotPanel("composition_validity", "composition validity (SMACT), %", 100),
        PlotPanel("distinct_formulas", "distinct formulas, %", 100),
        PlotPanel("effective_elements", "effective number of elements"),
        PlotPanel("failed", "samples without a full score"),
    ),
    cost=(
        *("unique", "novel", "composition_validity", "structure_validity"),
        *("structure_diversity", "composition_diversity", "msun_no_compound"),
    ),
    cost_note="Duplicates, known crystals, validity, diversity, and what lies in systems without a compound.",
    intervals="bootstrap; block jackknife for diversity",
    best_of=(
        "Parts of the reward that compare samples with each other (uniqueness, diversity) see as many of the control's"
        " draws at once as a training sees in one iteration."
    ),
    further=(
        Further("relaxed", "evaluation.relaxed", "Relaxed by the training's force field"),
        Further("second judge", "evaluation.second_judge", "By a second judge", package="sevenn", extra="sevennet"),
    ),
)
