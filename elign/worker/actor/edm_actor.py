"""Published name of `atomrl.policies.molecule.MoleculePolicy`, which `atomrl.core.update.update` moves."""

from atomrl.policies.molecule import MoleculePolicy as EDMActor

__all__ = ["EDMActor"]
