# Everything runs in .venv, which `make setup` creates from the pinned constraints.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.complete
DOCS := .venv/.docs
TRACKERS := .venv-trackers/bin/python

.PHONY: setup train test test-slow test-trackers lint docs benchmark notebooks reliability clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'error: Python 3.11 or newer is needed, this is ' + sys.version)"
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[envs,mujoco,probes,dev]"
	touch $@

train: setup
	$(PY) -m worldmodel.train $(ARGS)

test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --durations=10 $(ARGS)

test-slow: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow $(ARGS)

# W&B, MLflow, trackio and Sacred, without a network, in an environment of their own: they require older packages.
test-trackers:
	test -x $(TRACKERS) || $(PYTHON) -m venv .venv-trackers
	$(TRACKERS) -m pip install --quiet --constraint constraints.txt --editable ".[envs,dev]"
	$(TRACKERS) -m pip install --quiet --constraint constraints-trackers.txt --editable ".[trackers]"
	OMP_NUM_THREADS=1 $(TRACKERS) -m pytest tests/training/test_trackers.py $(ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports
	$(PY) -m mypy
	.venv/bin/codespell worldmodel encoders configs docs tests README.md CONTRIBUTING.md

# The documentation site, in site/. Any warning fails the build.
docs: setup $(DOCS)
	$(PY) docs/reference.py
	$(PY) -m zensical build --clean --strict

$(DOCS): $(STAMP)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

benchmark: setup
	$(PY) -m worldmodel.benchmark $(ARGS)

# All of them at full size, from runs trained anew; their outputs stay in the files. ARGS=… runs other files.
notebooks: setup
	rm -rf notebooks/runs
	OMP_NUM_THREADS=1 PYTHONWARNINGS='ignore:IProgress not found' $(PY) -m pytest --nbmake --overwrite --nbmake-timeout=3600 $(or $(ARGS),notebooks)

# ray is for the part `population`
reliability: setup
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[ray]"
	$(PY) -m worldmodel.reliability $(ARGS)

clean:
	rm -rf .venv .venv-trackers build dist site docs/reference *.egg-info
