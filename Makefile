# make demo             train a small Squeezeformer on synthetic speech and transcribe unseen speakers (DATA=folder: your data)
# make test             run lint, type checks and the fast tests
# make test-slow        run the slow tests: several processes, interrupted and resumed runs, whole programs
# make test-nemo-2.7.3  run the tests that use NeMo, with NeMo 2.7.3: parity with the encoder of NeMo 2.7.3, and its checkpoints
# make test-speed       check the speed ratios to the encoder of NeMo 2.7.3; this takes less than a minute
# make docs             build the documentation site in build/site (Python 3.11 or later)
# make test-gpu         run the tests of tests/gpu on a GPU (DEVICE=cpu: on the CPU); TORCH_PYTHON is an interpreter with PyTorch and pytest
# make lowest           run the tests of core with the lowest PyTorch version that setup.py allows, without NeMo
# PYTHON is the interpreter (3.10 or later) from which the environments are created.
PYTHON ?= python3
VENV = .venv
OLD_VENV = .venv-nemo-2.7.3
DOCS_VENV = .venv-docs
LOWEST_VENV = .venv-lowest
DATA ?=
TORCH_PYTHON ?= $(VENV)/bin/python
DEVICE ?= cuda
# These tests do not load NeMo, or test only files of the repository. They have run with NeMo 3.0.0 and the same torch.
WITHOUT_NEMO = $(addprefix --ignore ,tests/core tests/gpu tests/scripts tests/test_project.py \
	tests/test_architecture.py tests/test_packaging.py)
PARALLEL = --numprocesses 2 --dist loadfile
export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow lint docs lowest test-gpu test-nemo-2.7.3 test-speed clean

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
	$(VENV)/bin/codespell
	$(VENV)/bin/python scripts/check_words.py
	$(VENV)/bin/zizmor --offline --quiet .github/workflows

docs: $(DOCS_VENV)/.installed
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet
	@echo "The site is in build/site. Open build/site/index.html through a web server: python3 -m http.server --directory build/site"

lowest: $(LOWEST_VENV)/.installed
	OMP_NUM_THREADS=1 $(LOWEST_VENV)/bin/python -m pytest $(PARALLEL) tests/core

test-gpu: $(if $(filter $(VENV)/bin/python,$(TORCH_PYTHON)),$(VENV)/.installed)
	$(TORCH_PYTHON) -m pytest tests/gpu -m "slow or not slow" --device $(DEVICE)

test-nemo-2.7.3: $(VENV)/.installed $(OLD_VENV)/.installed
	OMP_NUM_THREADS=1 $(OLD_VENV)/bin/python -m pytest $(PARALLEL) $(WITHOUT_NEMO) --ignore tests/parity/test_old_files.py
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

$(DOCS_VENV)/.installed: constraints-docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --constraint constraints-docs.txt \
		mkdocs-material "mkdocstrings[python]" mkdocs-jupyter ruff
	touch $@

$(LOWEST_VENV)/.installed: setup.py constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python -m pip install --quiet --constraint constraints-lowest.txt torch setuptools wheel
	$(LOWEST_VENV)/bin/python -m pip install --quiet --constraint constraints-lowest.txt numpy pytest pytest-timeout pytest-xdist
	$(LOWEST_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
