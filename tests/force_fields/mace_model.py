"""Writes a small random MACE model for H, C, N, O: python mace_model.py FILE, in an environment with mace-torch."""

import sys

import mace  # isort: skip - before e3nn 0.4.4, which torch.load as it is does not let load its constants
import numpy as np
import torch
from e3nn import o3
from mace.modules import RealAgnosticInteractionBlock, RealAgnosticResidualInteractionBlock, ScaleShiftMACE

ENERGIES = [-13.6, -1029.8, -1484.9, -2042.0]
"""eV."""


def main() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    model = ScaleShiftMACE(
        r_max=4.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=RealAgnosticResidualInteractionBlock,
        interaction_cls_first=RealAgnosticInteractionBlock,
        num_interactions=2,
        num_elements=4,
        hidden_irreps=o3.Irreps("8x0e + 8x1o"),
        MLP_irreps=o3.Irreps("8x0e"),
        atomic_energies=np.array(ENERGIES),
        avg_num_neighbors=4.0,
        atomic_numbers=[1, 6, 7, 8],
        correlation=2,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        radial_MLP=[16, 16],
        radial_type="bessel",
    )
    print("mace", mace.__version__)
    torch.save(model, sys.argv[1])


if __name__ == "__main__":
    main()
