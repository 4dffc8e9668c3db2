# Every target sets up what it needs: Python >= 3.11, a C compiler and the package registries.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL = $(PY) -m pip install --quiet --upgrade pip \
	&& $(PY) -m pip install --quiet --editable '.[test,lint,build]'
TEXTS ?= texts
OUT ?= out/wordcount
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: wordcount test lint bench soak lab kernels clean help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# What an installation is made of. When only kernels changed, only they are built again.
$(VENV)/.ready: pyproject.toml setup.py $(wildcard ext/*)
	@$(PYTHON) .ci/prerequisites.py
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(if $(filter-out ext/%,$?),$(INSTALL),$(PY) setup.py --quiet build_ext --inplace)
	@touch $@

kernels: $(VENV)/.ready  ## rebuild the compiled loops after editing ext/

wordcount: $(VENV)/.ready  ## fetch the books and count their words on every core
	@$(PY) -m engine_cmd.main data fetch --to $(TEXTS) $(if $(MIRROR),--mirror $(MIRROR))
	@$(PY) -m engine_cmd.main mr run wordcount $(TEXTS) --out $(OUT) --workers $(WORKERS) --top 10 $(if $(RESUME),--resume,--force)

# What only needs a core is played on all of them; what starts processes mostly waits, and is played
# two at a time. A part may be empty (5) when PYTEST_ARGS chooses tests.
define all_tests
	$(1) $(PY) -m pytest -m pure -n $(WORKERS) --dist loadscope $(PYTEST_ARGS) || test $$? -eq 5
	$(1) $(PY) -m pytest -m 'not pure' -n 2 --dist loadscope $(PYTEST_ARGS) || test $$? -eq 5
endef

test: $(VENV)/.ready  ## all tests that fit in 15 minutes on two cores
	$(call all_tests)

lint: $(VENV)/.ready  ## style, types, kernels
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint ext  # it calls pycodestyle

# Measured as users have it: installed from a wheel, not from the clone.
BENCH := benchmarks/out
bench: $(VENV)/.ready  ## figures beside the peers, in one interleaved run
	@test -x $(BENCH)/venv/bin/python || $(PYTHON) -m venv $(BENCH)/venv
	$(PY) -m build --wheel --no-isolation --outdir $(BENCH)/dist . > /dev/null
	$(BENCH)/venv/bin/python -m pip install --quiet --upgrade pip
	$(BENCH)/venv/bin/python -m pip install --quiet "engine[bench,peers] @ file://$(CURDIR)/$$(ls -t $(BENCH)/dist/*.whl | head -1)"
	$(BENCH)/venv/bin/python -m pip install --quiet --force-reinstall --no-deps $$(ls -t $(BENCH)/dist/*.whl | head -1)
	$(BENCH)/venv/bin/python benchmarks/wordcount.py $(BENCH_ARGS)

soak: $(VENV)/.ready  ## the same tests at their full dose
	$(call all_tests,ENGINE_DOSE=full)

lab: $(VENV)/.ready  ## make lab LAB=mr N=5 IMPL=mine:make: one lab's tests, N times, until one fails
	@for i in $$(seq 1 $(or $(N),1)); do $(PY) -m pytest -q -m '$(or $(LAB),mr)' $(if $(IMPL),--impl '$(IMPL)') tests/labs || exit 1; done

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info out benchmarks/out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find engine -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
