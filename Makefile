# `make demo` and `make test` need only Python 3.11 or newer, make and a C library.
# Each sets up .venv from requirements.lock first.
#
# On Linux the registry's PyTorch brings CUDA along (about 3 GB). Without a GPU, this is smaller:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
STAMP := $(VENV)/.installed

# Packages that some slow tests put before those of $(VENV).
HF4 := .venv-hf4
BRAINMARKS := .venv-brainmarks
EXECUTORS := .venv-executors
ROCRATE := .venv-rocrate
# What a benchmark runs beside ours.
PYBIDS := .venv-pybids

.PHONY: help demo test test-slow test-ci lint bench lock clean hf4 brainmarks-env executors rocrate pybids-env slurm

help:
	@echo "make demo       phantom BIDS data -> every stage -> a tiny model -> an HTML report, in demo/"
	@echo "make test       unit and workflow tests, and a small study from tables to a report"
	@echo "make test-slow  the tests that need a demo, minutes each, or packages of their own"
	@echo "make test-ci    what continuous integration runs of both"
	@echo "make lint       formatting, style, types, layers, workflow"
	@echo "make bench      performance, as ratios measured side by side"
	@echo "make lock       resolve requirements.lock and environment.yml anew"
	@echo "make slurm      install Debian's Slurm, for the tests that start a cluster (needs root)"
	@echo "make clean      remove the demo and all caches (keeps .venv)"

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up $(VENV) (once; some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@if [ -n "$(TORCH_INDEX)" ]; then \
	  $(BIN)/pip install --quiet --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' $(LOCK))"; fi
	$(BIN)/pip install --quiet --requirement $(LOCK)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/brainlm demo --directory demo --cores $(CORES)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(CORES) -m "not slow and not nightly"

test-slow: $(STAMP) hf4 brainmarks-env executors rocrate
	$(BIN)/python -m pytest -n $(CORES) -m "slow or nightly"

# What a change must pass: all but the tests for every night, in one go, so that they share a demo.
# A worker more than cores, for one of them mostly waits for a cluster.
test-ci: $(STAMP) hf4 brainmarks-env executors rocrate
	$(BIN)/python -m pytest -n $$(($(CORES) + 1)) -m "not nightly"

# tests/cluster starts one of its own; this machine's own Slurm, if any, is left alone. Without the
# last line's packages, which keep accounts of jobs, only the tests of accounting are skipped.
slurm:
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v munged >/dev/null && \
	  command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge \
	  slurmdbd slurm-wlm-mysql-plugin mariadb-server-core mariadb-client-core; }

hf4: $(HF4)/.installed
brainmarks-env: $(BRAINMARKS)/.installed
executors: $(EXECUTORS)/.installed
rocrate: $(ROCRATE)/.installed
pybids-env: $(PYBIDS)/.installed

$(HF4)/.installed: tests/environments/transformers-4.txt | $(STAMP)
$(BRAINMARKS)/.installed: tests/environments/brainmarks.txt | $(STAMP)
$(EXECUTORS)/.installed: tests/environments/executors.txt | $(STAMP)
$(ROCRATE)/.installed: tests/environments/rocrate.txt | $(STAMP)
$(PYBIDS)/.installed: tests/environments/pybids.txt | $(STAMP)
$(HF4)/.installed $(BRAINMARKS)/.installed $(EXECUTORS)/.installed $(ROCRATE)/.installed $(PYBIDS)/.installed:
	rm -rf $(@D)
	$(BIN)/pip install --quiet --no-deps --target $(@D) --requirement $<
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/hadolint containers/Dockerfile containers/Dockerfile.gpu
	$(BIN)/python tests/workflow/lint_workflow.py

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip
	.venv-lock/bin/pip install --quiet torch==2.13.0
	.venv-lock/bin/pip install --quiet '.[imaging,train,ode,umap,tracking,workflow,dev]'
	.venv-lock/bin/pip freeze --all --exclude brainlm --exclude pip | $(PYTHON) scripts/write_lock.py
	rm -rf .venv-lock

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .snakemake
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
