"""The choice of backend and CPU level, and what importing the package brings with it."""

import ast
import asyncio
import contextlib
import contextvars
import graphlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fastdl
from fastdl import backends, reference

PACKAGE = Path(fastdl.__file__).parent
USABLE_LEVELS = [
    level for level in backends.supported_cpu_levels() if level in backends.built_cpu_levels()
]


def run_python(code, **environment):
    """Run code in a new interpreter, with these of fastdl's variables set and no others."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FASTDL_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def output_of(code, **environment):
    run = run_python(code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def error_of(code, **environment):
    """The last line of the traceback that the code ends in."""
    run = run_python(code, **environment)
    assert run.returncode == 1, run.stdout
    return run.stderr.splitlines()[-1]


@pytest.fixture
def kept_default():
    """Put the process's backend back where it was."""
    before = fastdl.get_backend()
    yield before
    fastdl.set_backend(before)


# ------------------------------------------------------------------------------ choosing a backend


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_set_backend_chooses_for_the_process(name, kept_default):
    seen = []
    fastdl.set_backend(name)
    thread = threading.Thread(target=lambda: seen.append(fastdl.get_backend()))
    thread.start()
    thread.join()
    assert [fastdl.get_backend(), *seen] == [name, name]


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_every_backend_defines_every_operation(name):
    with fastdl.use_backend(name):
        module = backends.current()
    assert module is not reference or name == "reference"
    assert [op for op in backends.OPERATIONS if not callable(getattr(module, op, None))] == []


@pytest.mark.parametrize(
    "choose", [fastdl.set_backend, lambda name: fastdl.use_backend(name).__enter__()]
)
@pytest.mark.parametrize("name", ["torch", "Cython", "", None])
def test_unknown_backend_is_refused(choose, name):
    before = fastdl.get_backend()
    with pytest.raises(ValueError, match=f"{name!r} is not one of reference, cython, numba"):
        choose(name)
    assert fastdl.get_backend() == before


def test_use_backend_nests():
    seen = []
    with fastdl.use_backend("reference"):
        with fastdl.use_backend("numba"):
            seen.append(fastdl.get_backend())
        seen.append(fastdl.get_backend())
    assert seen == ["numba", "reference"]


def test_use_backend_ends_with_its_block(kept_default):
    other = "numba" if kept_default == "reference" else "reference"
    with contextlib.suppress(ZeroDivisionError), fastdl.use_backend(other):
        assert fastdl.get_backend() == other
        raise ZeroDivisionError
    assert fastdl.get_backend() == kept_default


def test_use_backend_wins_over_set_backend(kept_default):
    with fastdl.use_backend("numba"):
        fastdl.set_backend("reference")
        assert fastdl.get_backend() == "numba"
    assert fastdl.get_backend() == "reference"


def test_use_backend_is_of_its_thread(kept_default):
    fastdl.set_backend("cython")
    seen = []

    def look():
        seen.append(fastdl.get_backend())

    with fastdl.use_backend("reference"):
        copied = contextvars.copy_context()
        for target in (look, lambda: copied.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    # A thread starts with the process's choice, unless it is given the context of another.
    assert seen == ["cython", "reference"]


def test_use_backend_is_of_its_task():
    async def look_between(name, others):
        with fastdl.use_backend(name):
            await others.wait()
            return fastdl.get_backend(), backends.current()

    async def both():
        barrier = asyncio.Event()
        tasks = [asyncio.create_task(look_between(n, barrier)) for n in ("reference", "numba")]
        await asyncio.sleep(0)  # both tasks enter their block
        barrier.set()
        return await asyncio.gather(*tasks)

    (first, first_module), (second, second_module) = asyncio.run(both())
    assert (first, second) == ("reference", "numba")
    assert first_module is reference
    assert second_module is not reference


# ---------------------------------------------------------------------------- environment variables

SHOW_BACKEND = "import fastdl; print(fastdl.get_backend())"
SHOW_LEVEL = "from fastdl import backends; print(backends.cpu_level())"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "cython"),
        ({"FASTDL_BACKEND": ""}, "cython"),
        ({"FASTDL_BACKEND": "reference"}, "reference"),
        ({"FASTDL_BACKEND": "numba"}, "numba"),
    ],
    ids=str,
)
def test_variable_names_the_backend(environment, expected):
    assert output_of(SHOW_BACKEND, **environment) == [expected]


def test_variable_with_an_unknown_backend_is_refused():
    message = error_of(SHOW_BACKEND, FASTDL_BACKEND="torch")
    assert message.startswith("ValueError: ")
    assert message.endswith("'torch' is not one of reference, cython, numba")


@pytest.mark.parametrize("level", USABLE_LEVELS)
def test_variable_names_the_cpu_level(level):
    assert output_of(SHOW_LEVEL, FASTDL_CPU=level) == [level]


def test_best_cpu_level_is_the_default():
    assert output_of(SHOW_LEVEL) == output_of(SHOW_LEVEL, FASTDL_CPU="") == [USABLE_LEVELS[-1]]


def test_variable_with_an_unknown_cpu_level_is_refused():
    assert error_of(SHOW_LEVEL, FASTDL_CPU="v9") == (
        "ImportError: FASTDL_CPU: 'v9' is not a level fastdl knows (baseline, v3, v4)"
    )


@pytest.mark.parametrize(
    ("features", "levels"),
    [
        ({}, ["baseline"]),
        ({"AVX2": True, "FMA3": False}, ["baseline"]),
        ({"AVX2": True, "FMA3": True, "AVX512_SKX": False}, ["baseline", "v3"]),
        ({"AVX2": True, "FMA3": True, "AVX512_SKX": True}, ["baseline", "v3", "v4"]),
    ],
)
def test_cpu_features_decide_which_levels_are_supported(features, levels, monkeypatch):
    monkeypatch.setattr(backends, "_cpu_features", lambda: features)
    assert backends.supported_cpu_levels() == levels


@pytest.mark.parametrize(
    ("supported", "built", "message"),
    [
        (["baseline"], ["baseline", "v3"], "'v3' is not a level this CPU supports (baseline)"),
        (
            ["baseline", "v3"],
            ["baseline"],
            "'v3' is not a level this installation was built for (baseline)",
        ),
    ],
)
def test_cpu_level_that_cannot_run_is_refused(supported, built, message, monkeypatch):
    monkeypatch.setattr(backends, "supported_cpu_levels", lambda: supported)
    monkeypatch.setattr(backends, "built_cpu_levels", lambda: built)
    monkeypatch.setenv("FASTDL_CPU", "v3")
    with pytest.raises(ImportError) as error:
        backends._choose_cpu_level()
    assert str(error.value) == f"FASTDL_CPU: {message}"


@pytest.mark.parametrize(
    ("cpus", "wanted", "threads"),
    [
        (2, None, 2),
        (2, "1", 1),
        (2, "8", 2),
        (2, "0", 2),
        (2, "many", 2),
        (128, None, 64),
        (128, "96", 64),
        (128, "5", 5),
        (128, " 5 ", 5),
        (128, "4,2", 4),  # of nested regions, whose first is the outermost
        (128, "²", 64),
    ],
)
def test_available_threads(cpus, wanted, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cpus)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert backends.available_threads() == threads


def test_no_build_for_this_cpu(monkeypatch):
    monkeypatch.delenv("FASTDL_CPU", raising=False)
    monkeypatch.setattr(backends, "built_cpu_levels", lambda: ["v4"])
    monkeypatch.setattr(backends, "supported_cpu_levels", lambda: ["baseline"])
    with pytest.raises(
        ImportError, match=r"built for CPU levels v4, and this CPU supports baseline"
    ):
        backends._choose_cpu_level()


def test_missing_compiled_module_is_explained(monkeypatch):
    monkeypatch.setattr(backends, "built_cpu_levels", list)
    with pytest.raises(
        ImportError, match=r"not built: run 'pip install .*FASTDL_BACKEND=reference"
    ):
        backends._choose_cpu_level()


def test_missing_scikit_learn_is_explained():
    code = """
import sys
sys.modules["sklearn"] = None
try:
    import fastdl.sklearn
except ImportError as error:
    print(error)
"""
    expected = "this needs the package sklearn: pip install 'fastdl-kernels[sklearn]'"
    assert " ".join(output_of(code)) == expected


def test_threads_are_limited_in_a_block(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with backends.use_threads(3):
        assert backends.available_threads() == 3
        with backends.use_threads(6):
            assert backends.available_threads() == 4
        with backends.use_threads(None):
            assert backends.available_threads() == 4
    assert backends.available_threads() == 4
    with (
        pytest.raises(ValueError, match=r"^count: 0 is not an integer >= 1"),
        backends.use_threads(0),
    ):
        pass


@pytest.mark.parametrize("count", [1.5, "2", True])
def test_a_number_of_threads_is_an_integer(count):
    with (
        pytest.raises(TypeError, match=rf"^count: {count!r} is not an integer >= 1$"),
        backends.use_threads(count),
    ):
        pass


def test_missing_numba_is_explained():
    code = """
import sys
sys.modules["numba"] = None
import fastdl
try:
    fastdl.set_backend("numba")
except ImportError as error:
    print(fastdl.get_backend(), error)
"""
    expected = (
        "cython backend: 'numba' needs the package numba: pip install 'fastdl-kernels[numba]'"
    )
    assert " ".join(output_of(code)) == expected


# ------------------------------------------------------------------------------ what is imported

OPTIONAL_PACKAGES = {
    "PIL",
    "dask",
    "distributed",
    "jax",
    "joblib",
    "keras",
    "matplotlib",
    "numba",
    "pandas",
    "pyarrow",
    "ray",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorflow",
    "torch",
    "tqdm",
}


def module_name(path):
    """The name of a module of the package, from there on: "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def test_import_loads_numpy_and_the_compiled_module_only():
    code = """
import sys, numpy
before = set(sys.modules)
import fastdl
print(*sorted(set(sys.modules) - before))
"""
    loaded = output_of(code)
    ours = {name for name in loaded if name.partition(".")[0] == "fastdl"}
    level = f"fastdl._kernels_{USABLE_LEVELS[-1]}"
    assert ours == {"fastdl", "fastdl.backends", "fastdl._kernels", level}
    # Cython registers its own runtime under two names, without a file behind them.
    foreign = {name.partition(".")[0] for name in loaded} - {"fastdl", "numpy"}
    foreign = {name for name in foreign if not name.lstrip("_").startswith("cython_")}
    assert foreign <= sys.stdlib_module_names


def test_optional_packages_are_imported_when_used():
    # These are nothing without their package, and __main__ would run the command.
    without = ("", "jit_engine", "jit_kernels", "__main__")
    names = [
        f"fastdl.{n}" for n in SOURCES if n not in without and n.partition(".")[0] != "sklearn"
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(n) for n in {names}]; print(*sys.modules)"
    )
    loaded = {name.partition(".")[0] for name in output_of(code)}
    assert loaded & OPTIONAL_PACKAGES == set()


def test_docstrings_may_be_stripped():
    code = "from fastdl import ops; print(ops.exp.__doc__, ops.relu([-1.0, 2.0]).tolist())"
    assert output_of(code, PYTHONOPTIMIZE="2") == ["None", "[0.0,", "2.0]"]


def test_lazy_names_are_what_they_say():
    code = """
import fastdl
for name in fastdl.__all__:
    value = getattr(fastdl, name)
    print(name, getattr(value, "__name__", value))
assert set(fastdl.__all__) <= set(dir(fastdl))
"""
    found = iter(output_of(code))
    names = {name: value.rpartition(".")[2] for name, value in zip(found, found, strict=True)}
    assert names.pop("__version__") == fastdl.__version__.rpartition(".")[2]
    assert names == {name: name for name in names}
    assert {"MLP", "History", "EarlyStopping", "Callback", "ops", "datasets", "load"} <= set(names)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'fastdl' has no attribute 'nothing'$"):
        fastdl.nothing  # noqa: B018


# ------------------------------------------------------------------------------ who imports whom

# Each layer imports from itself and from those above it in this list.
LAYERS = (
    {
        "_direct",
        "_kernels",
        "_optional",
        "_sparse",
        "checks",
        "jit_engine",
        "jit_kernels",
        "reference",
    },
    {"backends"},
    {"ops"},
    {"_declarative", "activations", "callbacks", "losses", "optimizers", "schedules"},
    {"_custom", "_engine", "_many", "_sweep", "blocks", "distributed", "network"},
    {"assignments", "keras", "sklearn"},
    {"__main__", "cli"},
)
# These know nothing of the rest, but how arguments are checked.
APART = {"augment", "datasets", "plots"}


def layer(name):
    top = name.partition(".")[0]
    return next(i for i, names in enumerate(LAYERS) if top in names)


def imports_of(name):
    """The modules of the package that a module's source imports, anywhere in it."""
    path = SOURCES[name]
    package = ["fastdl", *name.split(".")] if name else ["fastdl"]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # A name that is no module is an attribute of the module it is imported from.
            found = [
                full if full.partition(".")[2] in SOURCES else base
                for full in (f"{base}.{alias.name}" for alias in node.names)
            ]
        else:
            continue
        for full in found:
            top, _, inner = full.partition(".")
            if top == "fastdl":
                yield inner


def test_every_module_has_its_place():
    known = set().union(*LAYERS, APART)
    assert {name.partition(".")[0] for name in SOURCES if name} <= known


@pytest.mark.parametrize("name", [name for name in SOURCES if name])
def test_imports_point_one_way(name):
    imported = set(imports_of(name))
    if name in APART:
        assert imported <= {"_optional", "checks"}
        return
    if layer(name) < len(LAYERS) - 1:
        assert "" not in imported, "the package's own namespace is for its users"
    below = {other for other in imported if other and other not in APART}
    assert {other for other in below if layer(other) > layer(name)} == set()


def test_imports_make_no_circle():
    graph = {name: set(imports_of(name)) for name in SOURCES}
    assert set(graphlib.TopologicalSorter(graph).static_order()) >= set(SOURCES)


def test_imports_are_seen():
    assert {"checks", "backends", "reference"} <= set(imports_of("ops"))
    assert "backends" in set(imports_of(""))
    assert {"ops", "datasets"} <= set(imports_of("assignments.linear"))
