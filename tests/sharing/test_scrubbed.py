"""Nothing that is shared names a folder of the machine, or holds a secret."""

import pytest

from atomrl.config import load_config
from atomrl.sharing.scrubbed import shared_command, shared_config, shared_text, without_paths, without_secrets


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/ann/my runs/one", "one"),
        ("/home/ann/reward.py:Mine", "reward.py:Mine"),
        ("~/data/mp_20", "mp_20"),
        ("../elsewhere/mp_20", "mp_20"),
        ("outputs/my_run", "outputs/my_run"),
        ("see /home/ann/notes/a.txt, line 3", "see a.txt, line 3"),
        ("0.1 eV/Å, https://example.org/a/b, 3 / 500 samples", "0.1 eV/Å, https://example.org/a/b, 3 / 500 samples"),
        ("{_target_:mace,python:/home/ann/venv/bin/python}", "{_target_:mace,python:python}"),
        ("edm_qm9_small", "edm_qm9_small"),
        ("", ""),
    ],
)
def test_paths(text: str, left: str) -> None:
    assert without_paths({"key": [text]}) == {"key": [left]}


def test_commands() -> None:
    typed = (
        "atomrl evaluate --trained '/home/ann/my runs/one' reward.hull=/data/hulls/h.json --output=/tmp/x/y token=abc"
    )
    assert shared_command(typed) == "atomrl evaluate --trained one reward.hull=h.json --output=y 'token=***'"
    assert shared_text("| loss | /scratch/ann/a.json |") == "| loss | a.json |"
    nested = "atomrl train 'reward.components=[{_target_: mine.py:f, api_key: s3cret, tokens: 3}]'"
    assert shared_command(nested) == nested.replace("s3cret", "***")
    call = "atomrl.train('demo', ['save_path=/home/ann/run', \"a='b'\", 'x.token=abc'], reward=f)"
    assert shared_command(call) == "atomrl.train('demo', ['save_path=run', \"a='b'\", 'x.token=***'], reward=f)"


def test_secrets() -> None:
    tree = {
        "a": {"api_key": "x", "weight": 1.0},
        "b": ["hf_abcdefghijklmnopqrst", "c"],
        "tokens": 3,
        "access_token": "y",
    }
    assert without_secrets(tree) == {"a": {"weight": 1.0}, "b": ["c"], "tokens": 3}


def test_a_configuration() -> None:
    component = "{_target_: /home/ann/reward.py:Mine, weight: 2.0, api_key: abc, host: 'https://ann:pw@example.org/x'}"
    words = [
        "experiment=prototypes/rl_dng",
        f"reward.components=[{component}]",
        "save_path=/home/ann/run",
        "wandb.project=secret_plans",
        "seed=3",
    ]
    config, secrets = shared_config(load_config("demo", words))
    assert config.reward.components == [{"_target_": "reward.py:Mine", "weight": 2.0}]
    assert secrets == ["reward.components[0].api_key", "reward.components[0].host"]
    assert (config.save_path, config.wandb.project, config.seed) == (None, "atomrl", 3)
