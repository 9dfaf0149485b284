"""Evaluations as JSON files, made by hand."""

import json

MOLECULE_METRICS = {  # name: (label, unit, counted, better)
    "molecule_stability": ("molecule stability", "%", "samples", "higher"),
    "uniqueness": ("uniqueness", "%", "valid", "higher"),
    "validity_x_uniqueness": ("validity x uniqueness", "%", "samples", "higher"),
    "novelty": ("novelty", "%", "unique", "neither"),
    "valid_unique_novel": ("valid, unique and novel", "%", "samples", "higher"),
    "rms_force_median": ("RMS force, median", "eV/Å", "samples", "lower"),
}


def column(samples=100, **more):
    return {
        "samples": samples,
        "seeds": [7],
        "time_step": 50,
        "command": "atomrl evaluate",
        "sizes": {"10": 50, "20": 50},
        "elements": {"H": 60, "C": 40},
        "failures": {"rdkit": {"valence": 3}},
    } | more


def evaluation(values, columns=None, metrics=MOLECULE_METRICS, **more):
    """evaluation.json; values: {column: {metric: (value, low, high)}}, the same triple for metrics not named."""
    columns = columns or {label: column() for label in values}
    return {
        "profile": "edm-2022",
        "evaluator": "GFN2-xTB",
        "conditions": {"rdkit_version": "1"},
        "rewarded": ["molecule_stability", "rms_force_median"],
        "metrics": {
            name: {
                "label": label,
                "unit": unit,
                "counted": counted,
                "better": better,
                "columns": {
                    where: dict(zip(("value", "low", "high"), found.get(name, (0.5, 0.4, 0.6)), strict=True))
                    | {"denominator": 100}
                    for where, found in values.items()
                },
            }
            for name, (label, unit, counted, better) in metrics.items()
        },
        "columns": columns,
    } | more


def write(folder, name, table):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(table))
    return path
