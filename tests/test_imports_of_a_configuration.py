"""A YAML is read, overridden and written without torch or any package of physics or chemistry."""

import subprocess
import sys

HEAVY = ("torch", "lightning", "rdkit", "ase", "tblite", "chgnet", "pymatgen", "scipy", "safetensors", "numpy")
CODE = f"""
import sys
from atomrl.config import load_config, to_yaml, with_overrides
to_yaml(with_overrides(load_config("demo"), ["seed=3"]))
to_yaml(load_config("experiment/prototypes/rl_dng_grpo"))
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_reading_a_yaml_imports_no_physics():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
