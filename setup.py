"""Builds the compiled module: one source, one build for each instruction-set level.

Every level is compiled from the same `_kernels.pyx` and C headers as `fastdl._kernels_<level>`;
`fastdl/backends.py` imports the best one that the CPU supports. FASTDL_DEBUG=1 gives a build with
assertions on every kernel's arguments and no optimisation beyond -O1; FASTDL_SANITIZE=thread (or
address,undefined: what -fsanitize takes) one that GCC's sanitizers watch. Everything else about the
package stands in pyproject.toml.
"""

import copy
import glob
import os
import platform
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Levels of the x86-64 psABI, as GCC and Clang name them. Elsewhere the baseline is all there is.
X86_LEVELS = {
    "baseline": ["-march=x86-64"],
    "v3": ["-march=x86-64-v3"],
    # 512-bit registers, which compilers shun by default: they gain where work is dense enough.
    "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}

# -fno-math-errno and -fno-trapping-math let ?: on floats become selects; -fopenmp-simd reads
# `#pragma omp simd` and links no runtime. Never -ffast-math: it breaks NaN and the compensated
# sums.
FLAGS = ["-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-pthread"]

HEADERS = sorted(glob.glob("fastdl/*.h"))

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "binding": True,
    "autotestdict": False,
    "embedsignature": True,
    "embedsignature.format": "python",
}

debug = os.environ.get("FASTDL_DEBUG", "0") not in ("", "0")
sanitizers = os.environ.get("FASTDL_SANITIZE", "")
checked = debug or sanitizers
# Stands in every module: builds with other options may be newer than the sources too.
OPTIONS = f"fastdl built with debug={debug:d}, sanitizers={sanitizers};"
# Of debugging information, lines alone: with variables GCC takes three times as long. Python's own
# flags define signed overflow, which would go unreported then.
SANITIZE = (
    [f"-fsanitize={sanitizers}", "-g1", "-fno-omit-frame-pointer", "-fno-wrapv"]
    if sanitizers
    else []
)
x86 = platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32
levels = X86_LEVELS if x86 else {"baseline": []}


def kernel_module(level, flags):
    return Extension(
        f"fastdl._kernels_{level}",
        ["fastdl/_kernels.pyx"],
        depends=HEADERS,
        include_dirs=[numpy.get_include()],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            ("FASTDL_CPU_LEVEL", f'"{level}"'),
            ("FASTDL_DEBUG", "1" if debug else "0"),
            ("FASTDL_OPTIONS", f'"{OPTIONS}"'),
            # One generated C file serves all levels; only the name of its entry point differs.
            ("PyInit__kernels", f"PyInit__kernels_{level}"),
        ],
        extra_compile_args=[
            *FLAGS,
            *flags,
            *(["-O1", "-g"] if checked else ["-O3", "-g0"]),
            *SANITIZE,
        ],
        extra_link_args=SANITIZE if checked else ["-Wl,-s"] if sys.platform == "linux" else [],
    )


class BuildLevels(build_ext):
    """The levels at the same time, each with a folder of its own for the object of their source.

    What an earlier build with other options has left is built again.
    """

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or True

    def build_extension(self, ext):
        built = Path(self.get_ext_fullpath(ext.name))
        if built.exists() and OPTIONS.encode() not in built.read_bytes():
            built.unlink()
        builder = copy.copy(self)
        builder.build_temp = os.path.join(self.build_temp, ext.name)
        build_ext.build_extension(builder, ext)


def cythonized():
    modules = [kernel_module(level, flags) for level, flags in levels.items()]
    # Cythonize once under the common name, then give each level the generated C file.
    common = Extension("fastdl._kernels", ["fastdl/_kernels.pyx"], depends=modules[0].depends)
    cythonize([common], compiler_directives=DIRECTIVES)
    for module in modules:
        module.sources = ["fastdl/_kernels.c"]
    return modules


setup(ext_modules=cythonized(), cmdclass={"build_ext": BuildLevels})
