"""Speed against plain implementations: `python -m benchmarks`."""
