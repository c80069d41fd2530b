# Every target works on a machine with only Python (with venv), make and git: it creates .venv and
# installs what it needs, once. With a C compiler, flows are faster.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint docs dist bench

help:
	@echo "make demo   fit a flow to a real table and compare it with scikit-learn's densities"
	@echo "make test   run the whole test suite, with branch coverage"
	@echo "make lint   check style and types"
	@echo "make docs   build the documentation into docs/_build/html"
	@echo "make dist   build an sdist and a wheel into dist/, and test the wheel"
	@echo "make bench  explain how to run the benchmarks"

# A stamp is written last, so an interrupted step is run again.
$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp for each list of extras: .venv/.installed-cli,plot stands for '.[cli,plot]'.
# Editable, so that only a change of pyproject.toml or of C calls for installing again.
$(VENV)/.installed-%: pyproject.toml $(wildcard skflows/kernels/csrc/*.[ch]) $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[$*]'
	@touch $@

demo: $(VENV)/.installed-cli,plot
	$(BIN)/skflows demo

# One thread in each of the two workers: more would compete for the same cores.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# The wheel is tested in an environment of its own, in which nothing can be compiled.
dist: $(VENV)/.installed-dist
	rm -rf build dist
	$(BIN)/python -m build
	$(PYTHON) -m venv build/smoke
	CC=false build/smoke/bin/python -m pip install --disable-pip-version-check dist/*.whl
	cd build && smoke/bin/python -W error ../tests/smoke.py

ifdef DATA
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/quality.py --data '$(DATA)'
else
bench:
	@echo "make bench DATA=DIR trains every estimator and its peers on each .npz table in DIR"
	@echo "(arrays X and, if rows are labelled, y with 1 for an anomaly) and prints a table."
	@echo "This takes hours. For the speed of single steps: python benchmarks/step_times.py"
endif
