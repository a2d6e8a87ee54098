# Everything runs in .venv, which the first target that needs it makes from constraints.txt.
#
#   make demo     listen to the embedded simulator      make demo ARGS="--count 20 --format json"
#   make test     all tests, on all cores               make test ARGS="tests/wire -x"
#   make bench    this and its peers, side by side      make bench ARGS="--only throughput"
#   make fuzz     the parsers, with chance for bytes    make fuzz MINUTES=60
#   make check    lint, types, imports
#   make format   lay the code out as `make lint` wants it
#   make help-page     lay out what --help prints, after a change of flags
#   make constraints   look up the newest versions and pin them

# The first of these that runs and is new enough; PYTHON=/path/to/python asks for that one alone.
PYTHON ?= python3.11 python3
ARGS ?=
MINUTES ?= 5

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
EXTRAS := dev,http,socks
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready

# What pip is told about indexes and certificates holds; what would turn its installs away from
# the virtual environment does not.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_REQUIRE_VIRTUALENV := 0
export PIP_USER := 0
unexport PIP_CONSTRAINT PIP_DRY_RUN PIP_NO_DEPS PIP_PREFIX PIP_PYTHON PIP_REQUIREMENT PIP_ROOT PIP_TARGET
unexport PYTHONHOME PYTHONPATH PYTHONOPTIMIZE

# stdout is the program's own.
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz lint types imports check format help-page constraints clean

help:
	@sed -n '3,/^$$/s/^# \{0,2\}//p' Makefile

demo: $(READY)
	@$(BIN)/cti-listen --demo $(ARGS)

# All of them side by side, each file by one process, and two processes more than there are cores, for
# many wait for programs; those that ARGS picks one behind the other.
WORKERS = $$($(BIN)/python -c 'import os; print(len(os.sched_getaffinity(0)) + 2)')
# What they import is compiled once, not by each of the hundreds of programs that they start.
test: export PYTHONDONTWRITEBYTECODE :=
test: export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
test: $(READY)
	@$(BIN)/python -m pytest $(or $(ARGS),-n $(WORKERS) --dist loadfile --no-loadscope-reorder)

bench: $(BENCH_READY)
	@$(BENCH)/bin/python -m bench.speed $(ARGS)

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(READY)
	@$(BIN)/mypy

imports: $(READY)
	@$(BIN)/lint-imports --no-logo

check: lint types imports

format: $(READY)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean:
	@rm -rf $(VENV) $(BENCH) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# $(call make-venv,where): a new, empty virtual environment of the Python asked for, or why not.
define make-venv
	@set -eu; \
	for candidate in $(PYTHON); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python="$$candidate"; break; \
		fi; \
	done; \
	if [ -z "$${python:-}" ]; then \
		echo "cti_listener needs Python 3.11 or newer, and none of these is: $(PYTHON)." >&2; \
		echo "Install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip' 2>/dev/null; then \
		echo "$$python has no ensurepip, so it cannot make a virtual environment." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv (or python3.11-venv)." >&2; \
		exit 1; \
	fi; \
	echo "Making $(1) with $$("$$python" -VV | head -n 1) ..." >&2; \
	"$$python" -m venv --clear $(1) >&2
endef

$(READY): pyproject.toml constraints.txt
	$(call make-venv,$(VENV))
	@# The build tools first, pinned as well: an isolated build would take the newest.
	@# forbiddenfruit (of blockbuster's) comes as source alone, and is built by setuptools.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		hatchling editables setuptools >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--editable '.[$(EXTRAS)]' >&2
	@touch $@

# The peers are strangers to everything else, so they have an environment of their own.
$(BENCH_READY): pyproject.toml constraints.txt bench/constraints.txt bench/requirements.txt
	$(call make-venv,$(BENCH))
	@$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt \
		hatchling editables setuptools >&2
	@$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt \
		--constraint bench/constraints.txt --no-build-isolation \
		--editable '.[http]' --requirement bench/requirements.txt >&2
	@touch $@

# What `cti-listen --help` prints where there is room: laid out here, and not at each call.
help-page: $(READY)
	@mkdir -p build
	@env -u NO_COLOR COLUMNS=80 FORCE_COLOR=1 TERM=xterm $(BIN)/cti-listen --help > build/help.txt
	@mv build/help.txt cti_listener/help.txt

constraints:
	$(call make-venv,build/pins)
	@build/pins/bin/python -m pip install --quiet '.[$(EXTRAS)]' >&2
	@{ sed -n '/^#/p' constraints.txt; \
	   build/pins/bin/python -m pip freeze --all --exclude pip --exclude cti-listener; } > build/pins/constraints.txt
	@if grep -n '[@/]' build/pins/constraints.txt; then \
		echo "These came from a place, not from a registry; nothing was changed." >&2; exit 1; fi
	@mv build/pins/constraints.txt constraints.txt && rm -rf build/pins
