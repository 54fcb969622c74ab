# Everything a person or CI needs, one line each; `make run` and `make test` install by themselves.
export VIRTUAL_ENV := $(CURDIR)/.venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
LOCK := uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11
INSTALLED := .venv/.installed

SOAK_MINUTES := 20
SOAK_SCANS := 5000

.PHONY: install run test check lock bench clean slow fault soak fuzz
install: $(INSTALLED)
$(INSTALLED): requirements.lock pyproject.toml ; python3 -m venv .venv && pip install --quiet --require-hashes -r requirements.lock && pip install --quiet --no-deps --no-build-isolation -e . && touch $@
run: install ; @mkdir -p scans && { [ -n "$$(ls -A scans)" ] || { cp deploy/examples/* scans/ && echo "scans/ was empty: four example scans were put there."; }; } && exec photochrom up --inbox scans --output colorized
test: install ; pytest -m "not slow"
slow: install ; pytest -m slow --timeout 1800
fault: install ; rm -f docs/reliability.json && pytest tests/fault --timeout 1800 --reliability-table docs/reliability.md
soak: install ; pytest -s tests/fault/soak --soak-minutes $(SOAK_MINUTES) --soak-scans $(SOAK_SCANS)
fuzz: install ; FUZZ_CASES=5000 pytest tests/integration/test_fuzz_scans.py --timeout 3600
check: install ; ruff check . && ruff format --check . && mypy && lint-imports --no-cache
lock: install ; $(LOCK) pyproject.toml --extra worker --group dev -o requirements.lock && $(LOCK) pyproject.toml -o requirements-watch.lock && $(LOCK) pyproject.toml --extra gpu -o requirements-gpu.lock
bench: install ; for bench in tests/bench/bench_*.py; do python $$bench || exit 1; done
clean: ; rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
