# Every target works on a machine with only Python (with venv), make and git: it creates .venv and
# installs what it needs, once. With a C compiler, flows are faster.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test coverage test-lowest test-libraries fuzz sanitize lint docs packages dist \
	release bench

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
	@echo "make release  build wheels for the Pythons that are installed, and test each in a new environment"
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
LOWEST_VERSIONS := build/lowest.txt
test-lowest: $(LOWEST_VERSIONS)
	python3.11 -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check -e '.[test]' -c $(LOWEST_VERSIONS)
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(LOWEST_TESTS:%=tests/test_%.py)

$(LOWEST_VERSIONS): pyproject.toml
	mkdir -p build
	sed -n '/^dependencies/,/^]/s/ *"\([a-z-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml > $@
	echo 'pytest==8.2' >> $@

# Before a release: `make test` skips these tests, as most of these libraries are not in .venv then.
# Without npm, or Chromium, the test of the web page is skipped.
test-libraries: $(VENV)/.installed-test,libraries
	-npm install --prefix build --no-save --ignore-scripts onnxruntime-web
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/test_other_libraries.py tests/test_export.py

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

packages: $(VENV)/.installed-dist
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# The wheel is tested in an environment of its own, in which nothing can be compiled.
dist: packages
	$(PYTHON) -m venv build/smoke
	CC=false build/smoke/bin/python -m pip install --disable-pip-version-check dist/*.whl
	cd build && smoke/bin/python -W error ../tests/smoke.py

# Each of these Pythons that is installed makes a wheel of the sdist, and tests it with the newest
# versions of the dependencies; Python 3.11 also with the lowest. An environment is removed after its
# test, as PyTorch for Linux takes 5 GB. PyPI takes wheels of Linux with the tag of auditwheel only.
PYTHONS ?= 3.11 3.12 3.13 3.14
INSTALLED = $(foreach version,$(PYTHONS),$(shell python$(version) -c 'print("$(version)")' 2>&-))
RELEASE := build/release
release: packages
	rm dist/*.whl
	$(MAKE) -j1 $(INSTALLED:%=release-%) $(if $(filter 3.11,$(INSTALLED)),release-lowest)
	if [ "$$(uname)" = Linux ]; then \
		PATH="$(CURDIR)/$(BIN):$$PATH" auditwheel repair -w dist dist/*.whl && rm dist/*-linux_*.whl; fi
	$(BIN)/python -m twine check --strict dist/*
	@echo "Tested with Python $(INSTALLED), of $(PYTHONS). dist/ holds:"
	@ls dist

release-%: RELEASE_PYTHON = $*
release-lowest: RELEASE_PYTHON = 3.11
release-lowest: CONSTRAINTS = -c $(LOWEST_VERSIONS)
release-lowest: $(LOWEST_VERSIONS)
release-%:
	python$(RELEASE_PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip wheel --disable-pip-version-check --no-deps -w dist dist/*.tar.gz
	$(RELEASE)/bin/python -m pip install --disable-pip-version-check $(CONSTRAINTS) \
		dist/*-cp$(subst .,,$(RELEASE_PYTHON))-*.whl
	$(RELEASE)/bin/python -W error tests/smoke.py
	rm -rf $(RELEASE)

ifdef DATA
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/quality.py --data '$(DATA)'
else
bench:
	@echo "make bench DATA=DIR trains every estimator and its peers on each .npz table in DIR"
	@echo "(arrays X and, if rows are labelled, y with 1 for an anomaly) and prints a table."
	@echo "This takes hours. For the speed of single steps: python benchmarks/step_times.py"
endif
