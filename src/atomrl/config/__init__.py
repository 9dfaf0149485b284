"""The configuration of a run: typed, composed by Hydra from one self-contained YAML, checked before anything loads."""

from atomrl.config.compose import (
    SAMPLING,
    as_trained,
    from_yaml,
    load_config,
    read_config,
    require_meant,
    require_read,
    to_yaml,
    with_further,
    with_overrides,
)
from atomrl.config.crystals import CrystalConfig
from atomrl.config.molecules import MoleculeConfig
from atomrl.config.sections import Config, TrainSection

__all__ = [
    "SAMPLING",
    "Config",
    "CrystalConfig",
    "MoleculeConfig",
    "TrainSection",
    "as_trained",
    "from_yaml",
    "load_config",
    "read_config",
    "require_meant",
    "require_read",
    "to_yaml",
    "with_further",
    "with_overrides",
]
