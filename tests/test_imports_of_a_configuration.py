"""A YAML is read, overridden and written without torch or any package of physics or chemistry."""

import subprocess
import sys

HEAVY = ("torch", "lightning", "rdkit", "ase", "tblite", "chgnet", "pymatgen", "scipy", "safetensors", "numpy")
LOADED = f"print([name for name in {HEAVY} if name in sys.modules])"
CODE = f"""
import sys
from atomrl.config import load_config, to_yaml, with_overrides
to_yaml(with_overrides(load_config("demo"), ["seed=3"]))
to_yaml(load_config("experiment/prototypes/rl_dng_grpo"))
{LOADED}
"""
MISTAKE = f"""
import sys
from atomrl.cli import main
try:
    main(["train", "dataloader.epochs=3"])
except SystemExit as ended:
    assert ended.code == 2
{LOADED}
"""


def test_reading_a_yaml_imports_no_physics():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistyped_key_is_said_before_torch_is_imported():
    done = subprocess.run([sys.executable, "-c", MISTAKE], capture_output=True, text=True, check=True)
    assert "unknown configuration key dataloader.epochs" in done.stderr
    assert done.stdout.strip() == "[]"
