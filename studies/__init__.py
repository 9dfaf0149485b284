"""Studies of several seeds: a resumable queue of documented commands, then tables and curves in docs/results/."""
