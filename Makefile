# minigen: every target makes what it needs first; a second call skips what is done.
#
#   make demo MINUTES=5       a longer live training (3 minutes unless named)
#   make test PYTHON=/opt/python3.12/bin/python3      another Python
#   make demo TORCH=torch     the newest PyTorch, with CUDA where there is a GPU

SHELL   := /bin/bash
BIN     := .venv/bin
READY   := .venv/.ready
MINUTES ?=

# The first Python of at least 3.11 that can make a virtual environment.
CANDIDATES := python3.11 python3 python3.12 python3.13 python3.14
CAPABLE    := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON     ?= $(shell for p in $(CANDIDATES); do $$p -c '$(CAPABLE)' >/dev/null 2>&1 && echo $$p && break; done)

# The PyTorch of pyproject.toml's extra "cpu". On Linux, PyPI's brings gigabytes of CUDA libraries along; an index that has
# the one without: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH ?= $(shell sed -n 's/^cpu = \["\(.*\)"\]$$/\1/p' pyproject.toml)
PIP   := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input

.PHONY: help demo test lab notebooks site lint doctor clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     train a small text-to-audio model, hear it, compare it (MINUTES=$(or $(MINUTES),3)) -> build/report.html"
	@echo "make test     formatting, types, tests, and every notebook compared cell by cell"
	@echo "make lab      open JupyterLab on notebooks/"
	@echo "make notebooks  run every notebook anew, store its outputs and what it took (ONLY=03 for one)"
	@echo "make site     the course as it was run, as pages for any web server -> build/site/index.html"
	@echo "make lint     repair formatting where that needs no person; list the rest, types too"
	@echo "make doctor   test whether everything works, and say how to repair what does not"
	@echo "make clean    delete build/ and caches (.venv/ stays)"

demo: $(READY)
	@$(BIN)/minigen demo $(if $(MINUTES),--minutes $(MINUTES))

# One thread a worker: two workers with a thread pool each would fight for the cores.
test: export OMP_NUM_THREADS = 1
test: export HF_HUB_OFFLINE = 1
test: $(READY)
	@echo "ruff: rules and formatting"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "mypy: types of the chain and the engine"
	@$(BIN)/mypy
	@echo "pytest: tests and notebooks"
	@$(BIN)/python -m pytest -n 2 --dist loadfile \
		--nbval --nbval-current-env --nbval-cell-timeout=300 notebooks tests

lab: $(READY)
	@$(BIN)/jupyter lab notebooks

notebooks: export OMP_NUM_THREADS = 1
notebooks: $(READY)
	@$(BIN)/python -m minigen.course.execute $(ONLY)

site: $(READY)
	@$(BIN)/python -m minigen.course.site

lint: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/mypy

doctor: $(READY)
	@$(BIN)/python -m minigen doctor

clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find minigen tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(READY): pyproject.toml Makefile
	@[ -n "$(PYTHON)" ] || { echo "minigen needs Python 3.11 or newer with venv, and found none among: $(CANDIDATES)." \
		"Install one (Debian: apt install python3.11-venv), or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "[1/4] virtual environment .venv ($$($(PYTHON) --version))"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv --clear .venv
	@echo "[2/4] $(TORCH) (200 MB, a minute or two; with CUDA libraries some gigabytes)"
	@$(PIP) "$(TORCH)" $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@echo "[3/4] minigen and the other libraries of pyproject.toml (a minute or two)"
	@$(PIP) -e ".[dev,hub]"
	@echo "[4/4] does everything work?"
	@$(BIN)/python -m minigen doctor --mend
	@touch $@
