PYTHON ?= python3
export PYTHONPATH := $(CURDIR)
# An embedded Ray would else leave a token behind that a later `ray start` on this machine demands.
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
BIN := .venv/bin
FAISS ?= cpu

.PHONY: demo train-demo test test-all check benchmark rehearsal clean

demo: .venv/installed
	$(BIN)/python jobs/build_index.py jobs/recipes/demo.yaml

# The demo's corpus on to a small model, all stages of its training: about ten minutes.
train-demo: demo
	$(BIN)/python jobs/precompute_neighbors.py jobs/recipes/neighbors.yaml
	$(BIN)/python jobs/make_interleaved.py jobs/recipes/interleave.yaml root=runs/demo-five interleave.neighbors=runs/demo-neighbors
	$(BIN)/python jobs/train_encoder.py jobs/recipes/demo.yaml root=runs/demo-vit encoder.vit={}
	$(BIN)/python jobs/cache_patches.py jobs/recipes/patches.yaml
	for stage in language retrofit pretrain finetune; do \
		$(BIN)/python jobs/train.py jobs/recipes/train_demo.yaml stage=$$stage || exit 1; done

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
