"""The documented script that judges what `eval_elign_rollout.py` has drawn; see docs/molecules.md."""

from atomrl.cli import metrics_main

if __name__ == "__main__":
    metrics_main()
