# Needs GNU make and Python 3.11 or newer; `make PYTHON=python3.13 test` picks another than python3.
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
PIP = .venv/bin/python -m pip install --quiet

.PHONY: help .venv test test-windows check torture fuzz vectors format coverage pythons demo bench lock release-check clean
help: ## list the targets
	@sed -n 's/^\([a-z.-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.venv: .venv/.dev ## the environment every other target uses
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ostore needs Python 3.11 or newer; $(PYTHON) is %d.%d (try make PYTHON=python3.11)" % sys.version_info[:2])'
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }
.venv/.dev: requirements/dev.txt pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@
.venv/.demo .venv/.bench: .venv/.%: requirements/%.txt .venv/.dev
	$(PIP) --require-hashes -r $<
	@touch $@
.venv/.fuzz: requirements/fuzz.txt .venv/.dev
	@.venv/bin/python -c 'import sys; sys.platform == "linux" and sys.implementation.name == "cpython" and sys.version_info < (3, 14) or sys.exit("make fuzz needs CPython 3.11 to 3.13 on Linux: atheris is built for no other")'
	$(PIP) --only-binary atheris --require-hashes -r $<
	@touch $@

# Empty, because a Python that is told to keep no bytecode compiles ostore for each of the thousands of programs that the
# tests start. A third worker for two processors: each waits for the disk a good part of its time.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.dev ## run the tests (ARGS='-k bundle' for some; MEASURE=1 also holds the gates of coverage)
	@.venv/bin/python -m pytest -n 3 --dist worksteal $(if $(MEASURE),-p tests.measuring) $(ARGS)
test-windows: .venv/.dev ## the tests on Windows, under Wine (SLICE=1 for a part of two minutes)
	@scripts/windows_tests.sh $(if $(SLICE),slice)
check: .venv/.dev ## format, lint and types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy --strict ostore tests scripts
format: .venv/.dev ## write the format, mend what lint can mend
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format
# The files of tests/ that are named are those with a slice of something.
torture: .venv/.dev ## the long form of what `make test` takes a slice of, some hours
	OSTORE_TORTURE=1 .venv/bin/python -m pytest -n 2 \
		$$(grep -l -e TORTURE -e 'some(' tests/test_*.py) tests/torture tests/hostile tests/vectors $(ARGS)
fuzz: .venv/.fuzz ## every parser under a guided fuzzer, SECONDS=60 each (ARGS='tar frames' for some)
	.venv/bin/python -m tests.torture.fuzz.run --seconds $(or $(SECONDS),60) $(ARGS)
vectors: .venv/.dev ## the hostile bundles of the tests as files, for other programs (TO=FOLDER, ARGS='A1 B44' for some)
	@.venv/bin/python -m tests.vectors.write $(or $(TO),.vectors) $(ARGS)
coverage: MEASURE = 1
coverage: test ## the same as `make test MEASURE=1`: run the tests, show the lines they miss
pythons: .venv/.dev ## a slice of the tests on every other Python that is here, 3.11 to 3.14
	@scripts/other_pythons.sh
demo: .venv/.demo ## carry a real model of 253 MB across
	@.venv/bin/python scripts/demo.py
bench: .venv/.demo .venv/.bench ## measure against stock tools, or another checkout (ARGS="--size 500MB --against ../other")
	@test -f .demo/gemma-3-270m-q4_k_m.gguf || .venv/bin/python scripts/demo.py
	.venv/bin/python scripts/bench.py $(ARGS)
lock: ## write requirements/*.txt anew (ARGS=--upgrade for the newest versions)
	scripts/lock.sh $(ARGS)
release-check: .venv/.dev ## build twice, compare, install into an empty environment
	scripts/release_check.sh
clean: ## remove everything that was made here
	rm -rf .coverage.d .demo .fuzz .pythons .vectors .venv .windows dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find ostore tests scripts -name __pycache__ -prune -exec rm -rf {} +
