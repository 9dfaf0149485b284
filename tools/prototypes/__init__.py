"""The crystal set that ships with the package, and the script that builds it.

    candidates -> build (relax in workers) -> relaxed.jsonl -> finish -> prototypes.safetensors.xz + card -> load

AFLOW's prototypes x chemically sensible substitutions, relaxed by CHGNet. The set alone is read without pymatgen.
"""
