PYTHON ?= python3
export PYTHONPATH := $(CURDIR)
# An embedded Ray would else leave a token behind that a later `ray start` on this machine demands.
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
BIN := .venv/bin
FAISS ?= cpu

.PHONY: demo test test-all check benchmark rehearsal clean

demo: .venv/installed
	$(BIN)/python jobs/build_index.py jobs/recipes/demo.yaml

test: check
	$(BIN)/pytest -m "not slow"

test-all: check
	$(BIN)/pytest --timeout 3600

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: .venv/installed
	$(BIN)/python jobs/benchmark.py

# 75,000 shards under faults and kills: about 40 minutes.
rehearsal: .venv/installed
	$(BIN)/python jobs/rehearsal.py

# FAISS=gpu installs faiss-gpu in faiss-cpu's place. Exact versions: constraints.txt (torch apart: its CPU and CUDA
# builds bear different versions, so pyproject.toml holds its range).
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(FAISS),test]'
	touch $@

clean:
	rm -rf .venv build dist
