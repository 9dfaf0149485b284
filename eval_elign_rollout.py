"""The documented script that draws molecules from a run; see docs/molecules.md."""

from atomrl.cli import rollout_main

if __name__ == "__main__":
    rollout_main()
