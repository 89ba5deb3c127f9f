# `make demo` and `make test` set up all they need in .venv; a C++ compiler and Python 3.11 or newer are there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format soak interop arm screenshot screenshot-web clean

demo: $(VENV)/run
	$(BIN)/thirteen demo

test: $(VENV)/test
	$(BIN)/pytest

check: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

format: $(VENV)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Five minutes of clients that behave badly, against a real server.
soak: $(VENV)/test
	$(BIN)/python tests/soak.py 300

# Our files in loaders of others: node-llama-cpp of npm, xllamacpp of PyPI, gguf. They are fetched once.
interop: $(VENV)/test
	$(BIN)/pytest -m interop -s tests/interop

# llama.cpp for Arm under an emulator: apt-get install g++-aarch64-linux-gnu qemu-user cmake ninja-build.
# It is compiled once, half an hour on two cores, into the cache.
arm: $(VENV)/test
	$(BIN)/pytest -m arm -s tests/arm

# The picture of the page that runs in a browser, at a phone's size.
screenshot-web: $(VENV)/test
	$(BIN)/python tests/screenshot_web.py bench/results/web.png

# The README's picture of the page; needs Chromium (apt-get install chromium).
screenshot: $(VENV)/test
	$(BIN)/python tests/screenshot.py bench/results/page.png

# Each is remade when the dependencies change. llama-cpp-python is compiled here once, some minutes on two cores.
$(VENV)/run: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	mkdir -p $(VENV)/typed && ln -sfn ../.. $(VENV)/typed/thirteen  # under which name mypy finds the package
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
