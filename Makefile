# Each target makes .venv, installs what it needs into it and does its work: nothing but python3
# (with its headers and venv), gcc and make has to be there first. `make help` lists the targets.

PYTHON ?= python3
OUT ?= out
JOB ?= all
VENV := .venv
BIN := $(VENV)/bin

# A change in one of these calls for a new build; a change in Python code does not (the install is
# an editable one).
BUILD_SOURCES := setup.py pyproject.toml $(wildcard fastdl/*.pyx fastdl/*.pxd fastdl/*.h)
PYTHON_SOURCES := $(wildcard fastdl/*.py fastdl/*.pyi fastdl/*/*.py)

# Two workers: the tests are written to keep each on one core. With `loadfile` a module's compiled
# functions, Keras models and data are set up in one worker only.
PYTEST_OPTIONS := --numprocesses=2 --dist=loadfile

# What a build for another CPU level, for debugging or for a sanitizer has to show: the modules that say
# `pytestmark = pytest.mark.each_build` are about what its kernels compute. The others would repeat what
# the default build has shown, as would those of Numba's kernels.
EACH_BUILD := -m each_build -k "not numba"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-default test-levels test-debug lint sanitize soak ulp compare \
  cost roofline to-accuracy streaming bench docs dist clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/installed-all  ## train the three assignments, write their pictures to out/
	$(BIN)/fastdl demo all --out $(OUT)

test: test-default test-levels test-debug  ## run the tests on each build that this CPU can run

# Numba takes half a minute to compile its engine: once for all workers, in both dtypes side by side.
test-default: $(VENV)/installed-test  ## run the tests on the build chosen by default, with coverage
	printf 'float32\nfloat64\n' | xargs -P 2 -I DTYPE $(BIN)/python -c \
	  "import fastdl; fastdl.set_backend('numba'); \
	  fastdl.MLP([2, 1], dtype='DTYPE').fit([[0, 1]], [1], verbose=0)"
	$(BIN)/pytest $(PYTEST_OPTIONS) --cov --cov-report=term

test-levels: $(VENV)/installed-test  ## run the kernels' tests on the builds for other CPU levels
	@set -e; for level in $$($(BIN)/python -c \
	    "from fastdl import backends; print(*backends.supported_cpu_levels()[:-1])"); do \
	  echo "tests of the kernels, FASTDL_CPU=$$level"; \
	  FASTDL_CPU=$$level $(BIN)/pytest $(PYTEST_OPTIONS) $(EACH_BUILD) tests; \
	done

# From inside the copy, so that neither pytest nor a process that a test starts finds the other one.
test-debug: build/debug/installed $(VENV)/installed-test  ## run the kernels' tests on the debug build
	cd build/debug && PYTHONPATH="$$PWD" ../../$(BIN)/python -c \
	  "import fastdl, os; assert os.path.dirname(fastdl.__path__[0]) == os.getcwd(), fastdl"
	cd build/debug && PYTHONPATH="$$PWD" ../../$(BIN)/pytest $(PYTEST_OPTIONS) \
	  $(EACH_BUILD) -c ../../pyproject.toml --rootdir=../.. ../../tests

# Needs libtsan and libasan, which Debian installs with gcc. Numba's code is not instrumented, TensorFlow
# has races of its own, the widest network takes too long, and memory is used in another way.
sanitize: build/thread/installed build/address/installed $(VENV)/installed-test  ## search the engine for data races and bad accesses
	for sanitizer in thread address; do \
	  $(BIN)/python tools/sanitize.py $$sanitizer --quiet -m each_build \
	    -k "not numba and not keras and not wide and not memory" $(CURDIR)/tests || exit 1; \
	done

soak: $(VENV)/installed-test  ## train in trying circumstances: threads, forks, Ctrl-C, many fits
	$(BIN)/python tools/soak.py

lint: $(VENV)/installed-test  ## check the style, and the compiled module's stub
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy.stubtest --mypy-config-file=pyproject.toml fastdl._kernels

ulp: $(VENV)/installed-test  ## measure the error of exp, log, tanh, ... on each build
	$(BIN)/python bench/ulp.py --all-levels

compare: $(VENV)/installed-bench  ## time it against its peers, in turns; JOB=training for one suite
	$(BIN)/python bench/compare.py $(JOB)

cost: $(VENV)/installed-bench  ## time epochs against rows, width and batch; write tables, draw
	mkdir -p .benchmarks
	$(BIN)/python bench/cost.py .benchmarks/cost.json docs/benchmarks.md

roofline: $(VENV)/installed-bench  ## measure the machine's limits, write bench/ROOFLINE.md's tables
	$(BIN)/python bench/roofline.py bench/ROOFLINE.md

to-accuracy: $(VENV)/installed-bench  ## time the MNIST network from new to 97.5 % on validation
	$(BIN)/python bench/to_accuracy.py

streaming: $(VENV)/installed-test  ## train from 4 GB on the disk: rate, memory, killed and resumed
	$(BIN)/python bench/streaming.py

bench: $(VENV)/installed-bench  ## run the benchmarks and write the README's tables
	mkdir -p .benchmarks
	$(BIN)/pytest bench --benchmark-max-time=0.2 --benchmark-disable-gc --benchmark-quiet \
	  --benchmark-json=.benchmarks/latest.json
	$(BIN)/python bench/report.py .benchmarks/latest.json README.md docs/benchmarks.md

docs: $(VENV)/installed-all  ## run the gallery's examples, which write its pictures
	set -e; for example in docs/examples/*.py; do $(BIN)/python $$example docs/images; done

dist: $(VENV)/created  ## build the sdist, and from it the wheel, into dist/
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

clean:  ## remove everything that these targets made
	rm -rf $(VENV) build dist *.egg-info $(OUT) .benchmarks .coverage* \
	  fastdl/_kernels*.so fastdl/_kernels*.c

$(VENV)/created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed-%: $(BUILD_SOURCES) | $(VENV)/created
	$(BIN)/pip install --quiet --editable ".[$*]"
	touch $@

build/debug/installed: export FASTDL_DEBUG = 1
build/thread/installed: export FASTDL_SANITIZE = thread
build/address/installed: export FASTDL_SANITIZE = address,undefined,float-cast-overflow

# setuptools takes what an earlier build left in build/ as it is, and with it the wrong options.
build/%/installed: $(BUILD_SOURCES) $(PYTHON_SOURCES) | $(VENV)/created
	rm -rf build/$* build/lib* build/temp* build/bdist*
	$(BIN)/pip install --quiet --no-deps --target build/$* .
	rm -rf build/lib* build/temp* build/bdist*
	touch $@
