# Everything runs from .venv, which `make venv` builds from nothing: Python 3.11 or later with its venv module is enough.

PYTHON ?= python3
BIN := .venv/bin

# Of `make results`: which study, of those that `python -m results --help` names, and any of its options.
STUDY ?= molecules
OPTIONS ?=

# Of the tests: files at once, each on one thread. A file stays whole, since its tests share what is slow to make.
JOBS ?= 2
PYTEST = -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Extras that are tested in an environment each, with the tests of each, and what MACE needs in its own.
EXTRAS := ani eval lora sevennet uma
TESTS_ani := tests/force_fields/test_ani.py tests/training/test_ani_runs.py
TESTS_eval := tests/metrics/test_pose_checks.py tests/metrics/test_further_columns.py
TESTS_lora := tests/networks/test_lora_with_peft.py tests/training/test_lora_runs.py tests/training/test_pretrain_lora.py
TESTS_sevennet := tests/force_fields/test_sevennet.py
TESTS_uma := tests/force_fields/test_uma.py
MACE := mace-torch==0.3.16

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-crystals test test-slow test-all test-extras lint types docs bench results clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

venv: .venv/.stamp  ## build or refresh .venv

.venv/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "atomrl needs Python 3.11 or later, found %s: make venv PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt torch==2.13.0 -e '.[data,crystals,hub,dev]'
	@touch $@

demo: venv  ## post-train the shipped backbone and compare before with after, 20 minutes to an hour on 2 cores
	$(BIN)/atomrl train

demo-crystals: venv  ## the same for crystals: new, different, low-energy ones, 20 minutes to an hour on 2 cores
	$(BIN)/atomrl train experiment=prototypes/rl_dng

test: venv  ## run unit and contract tests and a short run of each domain, JOBS files at once, minutes; SLOW=yes: all tests
	$(BIN)/python -m pytest $(PYTEST) $(if $(SLOW),,-m "not slow")

test-slow: venv  ## run the rest: all commands of the documents, kills and resumes, a whole study, benchmarks
	$(BIN)/python -m pytest $(PYTEST) -m slow

test-all:  ## run all tests
	$(MAKE) test SLOW=yes

test-extras: $(EXTRAS:%=test-extra-%) test-mace  ## test each extra in an environment of its own, .venv-<extra>; gigabytes

test-extra-%: .venv-%/.stamp
	.venv-$*/bin/python -m pytest -m "" $(TESTS_$*)

test-mace: venv .venv-mace/.stamp
	MACE_PYTHON=$(CURDIR)/.venv-mace/bin/python $(BIN)/python -m pytest -m "" tests/force_fields/test_mace.py

.venv-mace/.stamp: Makefile
	$(PYTHON) -m venv .venv-mace
	.venv-mace/bin/pip install torch==2.13.0 $(MACE)
	@touch $@

.venv-%/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install -c constraints.txt torch==2.13.0 -e '.[$*,crystals]' pytest pytest-timeout
	@touch $@

lint: venv  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## check types, strict, the whole package
	$(BIN)/mypy

docs: venv  ## build the documentation as a site, site/index.html, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: venv  ## print speed ratios against plain implementations
	$(BIN)/python -m benchmarks

results: venv  ## train three seeds, compare, draw curves; resumable, hours
	$(BIN)/python -m results $(STUDY) $(OPTIONS)

clean:  ## remove what can be built again, but no run
	rm -rf .venv .venv-* build dist site .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
