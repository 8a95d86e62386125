# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv first if it is not there.

PYTHON ?= python3
BIN := .venv/bin
DATA ?= $(or $(RESNEST_DATA),../shared/data)
PHOTOS := $(DATA)/imagenet-sample-320/images

.PHONY: demo test promises lint bench ablation setup requirements clean

demo: .venv/ready  ## the whole way on handwritten digits: train, evaluate, predict, report
	$(BIN)/resnest demo

WORKERS ?= 2

test: .venv/ready  ## every test, long ones scaled down; WORKERS=8: in so many processes, each takes the next file
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Files that look at FULL of tests/conftest.py; those of tests/promises are the promises' own.
SCALED := tests/kernels tests/test_docs.py tests/test_hub.py tests/test_install.py tests/test_int8.py \
	tests/test_layouts.py tests/test_lvis_metrics.py tests/test_published_evaluation.py tests/test_training_options.py tests/test_two_hosts.py

promises: .venv/ready  ## P1..P15 and whatever `make test` scales down, at full figures
	RESNEST_PROMISES=full $(BIN)/python -m pytest tests/promises $(SCALED)

lint: .venv/ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Seconds on two cores with nothing else: engines 334, startup 29, predict 113, family 143; network and input about 6 minutes. SMOKE=1: small networks, no results.
bench: .venv/ready  ## every figure of speed in the README, into results/; each script writes what it has as it goes
	$(BIN)/python benchmarks/engines.py $(if $(wildcard $(PHOTOS)),--photos $(PHOTOS))
	$(BIN)/python benchmarks/startup.py --photo $(PHOTOS)
	$(BIN)/python benchmarks/predict.py --photos $(PHOTOS)
	$(BIN)/python benchmarks/batch.py --photos $(PHOTOS)
	$(BIN)/python benchmarks/serve.py --photos $(PHOTOS)
	$(BIN)/python benchmarks/family.py
	$(BIN)/python benchmarks/network.py --rounds 5
	$(BIN)/python benchmarks/input.py --photos $(PHOTOS) --rounds 9
	$(BIN)/python benchmarks/tables.py

ablation: .venv/ready  ## split attention against ResNet-D on two data sets, into results/; SMOKE=1 in minutes
	$(BIN)/python benchmarks/ablation.py --data $(DATA)/imagenette128 --variants 0s1x64d 2s1x64d --seeds 8
	$(BIN)/python benchmarks/ablation.py --data $(DATA)/imagenette128 --seeds 3
	$(BIN)/python benchmarks/ablation.py --data $(DATA)/cifar10-jpeg --seeds 3

setup: .venv/ready  ## the virtual environment with what requirements.txt pins

.venv/ready: requirements.txt requirements-oracles.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "resnest needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-oracles.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

requirements:  ## pin anew what CI installs, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --extra all --extra dev pyproject.toml -o requirements.txt

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache
