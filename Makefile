# `make demo` and `make test` install all they need into .venv. They need Python 3.11 or newer and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests of one module share a worker, and so do all tests of Ray, which mostly wait: hence three workers for two cores.
PARALLEL := -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test quick lint check format soak interop arm screenshot screenshot-web clean

demo: $(VENV)/run
	$(BIN)/thirteen demo

test: $(VENV)/test
	$(BIN)/pytest $(PARALLEL)

# The inner loop: no torch, no Ray, no browser, nothing slow.
quick: $(VENV)/test
	$(BIN)/pytest $(PARALLEL) -m 'not (slow or ray or browser or torch or interop or arm)'

lint: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

check: lint test

format: $(VENV)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A real server under clients that misbehave, for five minutes.
soak: $(VENV)/test
	$(BIN)/python tests/soak.py 300

# GGUF files of this project in other loaders: node-llama-cpp from npm, xllamacpp from PyPI. Both are downloaded once.
interop: $(VENV)/test
	$(BIN)/pytest -m interop -s tests/interop

# llama.cpp for Arm under an emulator: apt-get install g++-aarch64-linux-gnu qemu-user cmake ninja-build.
# It is compiled once into the cache, half an hour on two cores.
arm: $(VENV)/test
	$(BIN)/pytest -m arm -s tests/arm

# The pictures in the documentation. They need Chromium (apt-get install chromium).
screenshot: $(VENV)/test
	$(BIN)/python tests/screenshot.py bench/results/page.png

screenshot-web: $(VENV)/test
	$(BIN)/python tests/screenshot_web.py bench/results/web.png

# Both are made again when the dependencies change.
$(VENV)/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "Creating $(VENV) and installing thirteen."
	@echo "Compiling llama.cpp, once, takes about 4 minutes on 2 cores; later it comes from the cache of pip."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test: $(VENV)/run
	@echo "Installing what the tests need: PyTorch, transformers, Ray and others; some minutes of downloads."
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[test]'
	@mkdir -p $(VENV)/typed && ln -sfn ../.. $(VENV)/typed/thirteen  # the name under which mypy finds the package
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
