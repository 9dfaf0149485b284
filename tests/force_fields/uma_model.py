"""Writes a small random network in fairchem's form, with one of UMA's tasks: python uma_model.py FILE [omol | omat]."""

import sys

import torch
from fairchem.core.models.base import HydraModel
from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint

ESCN = "fairchem.core.models.uma.escn_md"
UNIT = "fairchem.core.units.mlip_unit.mlip_unit"

NAME = sys.argv[2] if len(sys.argv) > 2 else "omol"
"""Of the task; `omat` is that of crystals, with stress."""

MODEL = {
    "_target_": "fairchem.core.models.base.HydraModel",
    "pass_through_head_outputs": True,
    "backbone": {
        "model": f"{ESCN}.eSCNMDBackbone",
        "sphere_channels": 16,
        "hidden_channels": 16,
        "edge_channels": 16,
        "num_distance_basis": 16,
        "lmax": 2,
        "mmax": 2,
        "num_layers": 1,
        "cutoff": 5.0,
        "otf_graph": True,
        "direct_forces": False,
        "regress_forces": True,
        "regress_stress": NAME == "omat",
        "always_use_pbc": False,
        "dataset_list": [NAME],
    },
    "heads": {NAME: {"module": f"{ESCN}.MLP_EFS_Head", "prefix": NAME}},
}


def task(what: str, level: str, dim: list[int]) -> dict[str, object]:
    return {
        "_target_": f"{UNIT}.Task",
        "name": f"{NAME}_{what}",
        "level": level,
        "property": what,
        "out_spec": {"_target_": f"{UNIT}.OutputSpec", "dim": dim, "dtype": "float32"},
        "normalizer": {
            "_target_": "fairchem.core.modules.normalization.normalizer.Normalizer",
            "mean": 0.0,
            "rmsd": 1.0,
        },
        "datasets": [NAME],
    }


def main() -> None:
    torch.manual_seed(0)
    model = HydraModel(**{key: value for key, value in MODEL.items() if key != "_target_"})
    averaged = torch.optim.swa_utils.AveragedModel(model)
    tasks = [task("energy", "system", [1]), task("forces", "atom", [3])]
    if NAME == "omat":
        tasks.append(task("stress", "system", [1, 9]))
    torch.save(MLIPInferenceCheckpoint(MODEL, model.state_dict(), averaged.state_dict(), tasks), sys.argv[1])


if __name__ == "__main__":
    main()
