# Every target works on a machine with only Python (with venv), make and git: it creates .venv and
# installs what it needs, once. With a C compiler, flows are faster.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test coverage test-lowest test-libraries fuzz sanitize lint docs dist bench

help:
	@echo "make demo   fit a flow to a real table and compare it with scikit-learn's densities"
	@echo "make test   run the whole test suite"
	@echo "make coverage  the same, with branch coverage, in twice the time"
	@echo "make test-lowest  test the lowest versions of the dependencies, with Python 3.11"
	@echo "make test-libraries  run the snippets of the page on other libraries, which it installs"
	@echo "make lint   check style and types"
	@echo "make docs   build the documentation into docs/_build/html"
	@echo "make fuzz   check what the package promises on odd tables, for ten minutes"
	@echo "make sanitize  test the compiled kernels under address and undefined-behaviour sanitizers"
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
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(VENV)/.installed-test
	$(PYTEST)

coverage: $(VENV)/.installed-test
	$(PYTEST) --cov

# In an environment of its own, in which PyTorch for Linux takes 5 GB. Dask and parquet files are not
# among these tests, because pyarrow needs a newer NumPy; tests of callbacks are skipped.
LOWEST := build/lowest
LOWEST_TESTS = bijections calibration cnf composition density estimators export fixed_bijections \
	input kernels optimizer outlier persistence search training
test-lowest:
	rm -rf $(LOWEST)
	python3.11 -m venv $(LOWEST)
	sed -n '/^dependencies/,/^]/s/ *"\([a-z-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml \
		> $(LOWEST)/constraints.txt
	echo 'pytest==8.2' >> $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check -e '.[test]' \
		-c $(LOWEST)/constraints.txt
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(LOWEST_TESTS:%=tests/test_%.py)

# Before a release: `make test` skips these tests, as most of these libraries are not in .venv then.
test-libraries: $(VENV)/.installed-test,libraries
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/test_other_libraries.py

# The short part of this runs with the suite.
fuzz: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 SKFLOWS_FUZZ_SECONDS=600 $(BIN)/python -m pytest -s tests/test_fuzz.py

# In a copy of the package with kernels of its own. Python's own leaks are ignored.
SANITIZED := build/sanitize
SANITIZERS = $(foreach name,asan ubsan,$(shell gcc -print-file-name=lib$(name).so))
sanitize: $(VENV)/.installed-test
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r skflows tests pyproject.toml $(SANITIZED)
	rm -f $(SANITIZED)/skflows/kernels/*.so
	gcc -shared -fPIC -g -O1 -fno-math-errno -fno-trapping-math -fno-sanitize-recover=all \
		-fsanitize=address,undefined $$($(BIN)/python -c \
		'import sysconfig; print("-I" + sysconfig.get_path("include"))') \
		skflows/kernels/csrc/module.c -o $(SANITIZED)/skflows/kernels/_compiled.so -lm
	cd $(SANITIZED) && LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 \
		PYTHONPATH=. $(CURDIR)/$(BIN)/python -m pytest -q -p no:cacheprovider \
		tests/test_kernels.py tests/test_univariate.py

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
