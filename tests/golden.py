"""Golden vectors of the EDM backbone: numbers of an independent implementation, with random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from atomrl.networks.edm import EDMConfig, EDMNetwork

DATA = Path(__file__).parent / "data"
EDM_CASES = ("edm_qm9", "edm_geom", "edm_alpha", "edm_sin_mean")
WALKS = [(steps, s) for steps in (1000, 50) for s in (0, steps // 10, steps // 2, steps - 1)]
"""(T, s) of the recorded transitions (s + 1)/T -> s/T."""
QM9 = ("H", "C", "N", "O", "F")
GEOM = ("H", "B", "C", "N", "O", "F", "Al", "Si", "P", "S", "Cl", "As", "Br", "I", "Hg", "Bi")


@dataclass(frozen=True)
class GoldenEDM:
    """One file: a network with its weights, and what it must answer.

    Attributes:
        network: float32.
        expected: tensors by name, `case.` left out.
        tolerance: max |a - b| / max |b| to reach, with split edge layers.
    """

    network: EDMNetwork
    expected: dict[str, Tensor]
    tolerance: float

    @property
    def mask(self) -> Tensor:
        """(4, 9)."""
        return self.expected["node_mask"][..., 0]

    @property
    def context(self) -> Tensor | None:
        """(4, C) where the model is conditional."""
        context = self.expected.get("context")
        return None if context is None or not self.network.config.context_features else context[:, 0]


def load_edm(name: str) -> GoldenEDM:
    """One of `EDM_CASES`."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        entries = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    config = EDMConfig(
        elements=QM9 if entries["atom_types"] == len(QM9) else GEOM,
        include_charges=entries["include_charges"],
        normalize_factors=tuple(entries["normalize_factors"]),
        context_features=entries["context_node_nf"],
        hidden=entries["nf"],
        layers=entries["n_layers"],
        inv_sublayers=entries["inv_sublayers"],
        sin_embedding=entries["sin_embedding"],
        aggregation=entries["aggregation_method"],
        normalization_factor=entries["normalization_factor"],
    )
    network = EDMNetwork(config)
    network.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("state.")})
    expected = {key[5:]: value for key, value in tensors.items() if key.startswith("case.")}
    return GoldenEDM(network, expected, 3e-3 if name == "edm_sin_mean" else 1e-4)


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())
