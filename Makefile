# Two commands do all the work on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
SUPPORTED := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
# The light environment: the newest releases, on the newest Python that runs (a name on the PATH may be a stub).
LIGHT := .venv-light
LIGHT_READY := $(LIGHT)/.installed
LIGHT_PYTHON ?= $(shell for v in 3.13 3.12 3.11; do \
	for p in python$$v $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$v.*/bin/python3 python3; do \
	if $$p -c "import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$v')" >/dev/null 2>&1; then echo $$p; exit; fi; done; done)
# A relative path would mean another folder in a notebook's kernel.
ifdef HUMANCLAP_RELATE
export HUMANCLAP_RELATE := $(abspath $(patsubst ~/%,$(HOME)/%,$(HUMANCLAP_RELATE)))
endif
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3; do \
	if $$p -c '$(SUPPORTED)' >/dev/null 2>&1; then echo $$p; break; fi; done)
endif
# Two processes, each with the files of its own; one thread each, so that they do not wait for each other.
PARALLEL := -q -n 2 --dist loadfile

NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))

export TOKENIZERS_PARALLELISM := false
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.NOTPARALLEL:
.PHONY: help demo paper test test-fast test-slow test-light lab figures clean
help:
	@echo "make demo       all notebooks on the embedded corpus and RELATE's ratings -> runs/demo/"
	@echo "make test       every test, the fast tier first;  make test-fast: the daily tier"
	@echo "make test-light the tests that need no extra, with the newest packages (Python 3.13 where there is one)"
	@echo "make lab        JupyterLab on the first notebook"
	@echo "make figures    copy the README's figures from runs/demo/ into figures/"
	@echo "make paper      all notebooks with the paper's settings, on RELATE's audio and a GPU -> runs/paper/"
	@echo "make clean      remove runs/, caches and the virtual environment (not data/)"
	@echo "PYTHON=...      a Python 3.11 or 3.12 to build the environment with (LIGHT_PYTHON=... for make test-light)"

demo paper: $(READY)
	@$(PY) -m humanclap.study run $@

test: test-fast test-slow
test-fast: $(READY)
	$(PY) -m pytest $(PARALLEL) -m "not slow"
test-slow: $(READY)
	$(PY) -m pytest $(PARALLEL) -m slow
test-light: $(LIGHT_READY)
	HUMANCLAP_TEST_EXTRAS=none $(LIGHT)/bin/python -m pytest $(PARALLEL) -m "not slow"

lab: $(READY)
	$(PY) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(firstword $(NOTEBOOKS))

figures: $(READY)
	$(PY) -m humanclap.study figures demo

clean:
	rm -rf runs .pytest_cache build *.egg-info $(VENV) $(LIGHT)
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment is made anew when what it is made of changes.
$(READY): pyproject.toml constraints.txt
	@"$(or $(PYTHON),false)" -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "humanclap needs Python 3.11 or 3.12 (found: $$("$(or $(PYTHON),python3)" --version 2>&1)); install one and run: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(PY) -m pip install -q -c constraints.txt -e '.[laion,msclap,study,dev]'
	@touch $@

$(LIGHT_READY): pyproject.toml
	@[ -n "$(LIGHT_PYTHON)" ] || { echo "no Python 3.11 to 3.13 is found; run: make test-light LIGHT_PYTHON=/path/to/python3.13"; exit 1; }
	"$(LIGHT_PYTHON)" -m venv --clear $(LIGHT)
	$(LIGHT)/bin/python -m pip install -q -e . packaging pytest pytest-xdist
	@touch $@
