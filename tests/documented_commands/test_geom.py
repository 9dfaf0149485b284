"""The configurations of GEOM-Drugs, whose weights a user has to fetch."""

from pathlib import Path

import pytest

from atomrl.cli import main


@pytest.mark.parametrize("name", ["fed_grpo_geom_smoke", "fed_grpo_geom_config"])
def test_without_the_weights_they_say_where_these_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config-name", name, "save_path=run"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "pretrained/edm/edm_geom_drugs/generative_model_ema.npy" in error
    assert "ehoogeboom/e3_diffusion_for_molecules" in error
    assert not (tmp_path / "run").exists()
