# make demo    train a small Squeezeformer on speech it makes, transcribe voices it never heard (DATA=folder: on yours)
# make test    the fast tests, lint and types
# make test-slow    several processes, killed and resumed runs, whole programs
# make test-nemo-2.7.3    beside NeMo 2.7.3: parity with its own encoder, and its old checkpoints
# make test-speed    whether we are still as much faster than NeMo 2.7.3's own encoder: ratios, under a minute
# PYTHON picks the interpreter (3.10 or later) that the environments are made from.
PYTHON ?= python3
VENV = .venv
OLD_VENV = .venv-nemo-2.7.3
DATA ?=
PARALLEL = --numprocesses 2 --dist loadfile
export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow lint test-nemo-2.7.3 test-speed clean

demo: $(VENV)/.installed
	$(VENV)/bin/python scripts/demo.py --output build/demo $(if $(DATA),--data "$(DATA)")

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL)

test-slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) -m slow

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict --no-warn-return-any nemo_squeezeformer/core

test-nemo-2.7.3: $(VENV)/.installed $(OLD_VENV)/.installed
	OMP_NUM_THREADS=1 $(OLD_VENV)/bin/python -m pytest $(PARALLEL) --ignore tests/parity/test_old_files.py
	NEMO_2_7_3_PYTHON=$(OLD_VENV)/bin/python $(VENV)/bin/python -m pytest tests/parity/test_old_files.py

test-speed: $(OLD_VENV)/.installed
	MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000 OMP_NUM_THREADS=1 \
		$(OLD_VENV)/bin/python -m benchmarks.speed.check

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch setuptools wheel
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[nemo,dev]"
	touch $@

$(OLD_VENV)/.installed: setup.py constraints-nemo-2.7.3.txt
	$(PYTHON) -m venv $(OLD_VENV)
	$(OLD_VENV)/bin/python -m pip install --quiet --constraint constraints-nemo-2.7.3.txt torch setuptools wheel
	$(OLD_VENV)/bin/python -m pip install --quiet --constraint constraints-nemo-2.7.3.txt --editable ".[nemo,dev]"
	touch $@

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
