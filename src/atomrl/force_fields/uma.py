"""UMA: Meta's networks for all of chemistry, here by its task OMol25, wB97M-V/def2-TZVPD.

Source: Wood et al. 2025, doi 10.48550/arXiv.2506.23971; through the package fairchem-core. The weights are gated: one
accepts their licence on Hugging Face and gives a token, HF_TOKEN. fairchem sets seeds and unpickles models, so it runs
in worker processes, of this environment (extra `uma`) or of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from atomrl.force_fields.base import CrystalForceFieldSpec, ForceFieldSpec
from atomrl.force_fields.network_workers import Network, NetworkForceField, existing
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

if TYPE_CHECKING:
    from atomrl.force_fields.network_crystals import NetworkCrystals

NAME = "UMA"
TASKS = "atomrl.force_fields.uma_task"


class UMAForceField(NetworkForceField):
    """Energies and forces of neutral molecules with the fewest unpaired electrons; see `NetworkForceField`.

    Args:
        model: name of published weights, which are fetched once, into fairchem's cache.
        model_file: in its place, a file with weights in fairchem's form; it may run code when it is loaded.
        python: interpreter of another environment with fairchem-core; this one's if None.
        batch_size: molecules evaluated together.
        workers: of the run, or a number of processes; one per core that this process may use if None.
        timeout: seconds per molecule.
        device: `auto` takes a GPU if there is one.

    Raises:
        UserError: as `Network` and `NetworkForceField`; fairchem is not installed; weights that cannot be had.
    """

    def __init__(
        self,
        model: str = "uma-s-1p1",
        model_file: str | None = None,
        python: str | None = None,
        batch_size: int = 16,
        workers: Workers | int | None = None,
        timeout: float = 10.0,
        device: str = "auto",
    ) -> None:
        settings = {"model": model, "model_file": _place(model_file, python)}
        super().__init__(Network(NAME, TASKS, settings, batch_size, workers, timeout, device, python))

    def atom_energies(self) -> Mapping[str, float]:
        """Energies of isolated neutral atoms by the same method, {symbol: eV}, which come with published weights.

        Raises:
            UserError: there are none, e.g. with a `model_file`.
        """
        if self._description.atom_energies is None:
            raise UserError(
                "the energies of atoms of UMA's task omol come with its published weights, and these were not loaded: "
                "give reward.energy_atom_refs={H: ..., C: ...} in eV, or null"
            )
        return self._description.atom_energies


def uma_crystals(
    model: str = "uma-s-1p1",
    model_file: str | None = None,
    python: str | None = None,
    batch_size: int = 16,
    workers: Workers | int | None = None,
    timeout: float = 10.0,
    device: str = "auto",
    gradients: bool = False,
) -> NetworkCrystals:
    """Energies of crystals by UMA's task `omat`, and if asked for forces and stress; arguments as of `UMAForceField`.

    They are those of OMat24 (PBE and PBE+U with newer pseudopotentials than Materials Project's), without corrections:
    a scale of their own.

    Args:
        model: name of published weights.
        model_file: in its place, a file with weights.
        python: interpreter of another environment.
        batch_size: crystals evaluated together.
        workers: of the run, or a number of processes.
        timeout: seconds per crystal.
        device: `auto` takes a GPU if there is one.
        gradients: whether to compute forces and stress.

    Raises:
        UserError: as `UMAForceField`.
    """
    from atomrl.force_fields.network_crystals import UNCORRECTED, NetworkCrystals  # noqa: PLC0415 - an extra

    settings = {"model": model, "model_file": _place(model_file, python), "gradients": gradients}
    name = model if model_file is None else "uma"
    return NetworkCrystals(Network(name, TASKS, settings, batch_size, workers, timeout, device, python), UNCORRECTED)


def _place(model_file: str | None, python: str | None) -> str | None:
    """The whole path of a file with weights, or None.

    Raises:
        UserError: there is no such file, or fairchem is not installed where it shall run.
    """
    if python is None and find_spec("fairchem") is None:
        raise UserError("this needs the package fairchem-core, which is not installed: pip install 'atomrl[uma]'")
    return None if model_file is None else existing(model_file, NAME)


def _make(settings: Mapping[str, Any], **options: Any) -> UMAForceField:
    """Out of a configuration."""
    return UMAForceField(**options, **{name: settings[name] for name in ("workers", "timeout", "device")})


def _make_crystals(settings: Mapping[str, Any], **options: Any) -> NetworkCrystals:
    """Out of a configuration."""
    return uma_crystals(**{**settings, **options})


SPEC = ForceFieldSpec(NAME, _make)
CRYSTAL_SPEC = CrystalForceFieldSpec(_make_crystals, "hull-uma.json")
