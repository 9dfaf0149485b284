"""The SMILES of the training molecules, as hashes: what novelty is measured against.

Shipped as sorted 64-bit hashes (under 1 MB) instead of 100,000 strings. The chance that any of 10,000 new molecules
meets a foreign hash is below 1e-10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

ASSET = ("assets", "qm9_train_smiles.safetensors")


@dataclass(frozen=True)
class TrainingSmiles:
    """A set of SMILES.

    Attributes:
        hashes: of each SMILES, sorted, without repeats, (count,) int64.
        molecules: training molecules that the set was made of, invalid ones included.
        protocol: how the SMILES were made, e.g. `edm-2022`.
        rdkit_version: RDKit whose canonical SMILES they are; another version may write some molecules differently,
            which then look novel.
        source: name of the file that the SMILES were read from; empty for a set that was made of molecules.
    """

    hashes: NDArray[np.int64]
    molecules: int
    protocol: str
    rdkit_version: str
    source: str = ""

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def described(self) -> str:
        """For the conditions of a table."""
        source = f" from {self.source}" if self.source else ""
        return f"{len(self)} SMILES of {self.molecules} molecules{source}, RDKit {self.rdkit_version}"

    @classmethod
    def of(
        cls, smiles: Iterable[str], molecules: int, protocol: str, rdkit_version: str, source: str = ""
    ) -> TrainingSmiles:
        """The set of these SMILES."""
        return cls(np.unique(hash_smiles(list(smiles))), molecules, protocol, rdkit_version, source)

    @classmethod
    def load(cls, path: Path | None = None) -> TrainingSmiles:
        """The set in a file; by default the one that ships, of QM9's 100,000 training molecules.

        Raises:
            UserError: the file is missing or not a set of SMILES.
        """
        if path is None:
            with resources.as_file(resources.files("atomrl").joinpath(*ASSET)) as shipped:
                return cls.load(shipped)
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                hashes: NDArray[np.int64] = file.get_tensor("hashes")
            return cls(hashes, int(about["molecules"]), about["protocol"], about["rdkit_version"])
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(
                f"{path} is not a set of training SMILES ({error}); build one with python -m atomrl.data.qm9_assets"
            ) from error

    def save(self, path: Path) -> None:
        """Write the set to a safetensors file, whole or not at all."""
        about = {
            "count": str(len(self)),
            "molecules": str(self.molecules),
            "protocol": self.protocol,
            "rdkit_version": self.rdkit_version,
        }
        write_whole(path, save({"hashes": self.hashes}, metadata=about))

    def contains(self, smiles: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each SMILES is in the set, (len(smiles),)."""
        wanted = hash_smiles(smiles)
        if not len(self):
            return np.zeros(len(wanted), dtype=np.bool_)
        places = np.searchsorted(self.hashes, wanted).clip(max=len(self) - 1)
        found: NDArray[np.bool_] = self.hashes[places] == wanted
        return found


def hash_smiles(smiles: Sequence[str]) -> NDArray[np.int64]:
    """64-bit BLAKE2b of each SMILES, (len(smiles),)."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in smiles)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
