"""Packages that only some features need: imported when first used, named when missing."""

import importlib


def optional_import(name, *, extra):
    """Import the module `name`, or say which extra of fastdl brings it.

    Raises
    ------
    ImportError
        If the package is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"this needs the package {package}: pip install 'fastdl-kernels[{extra}]'"
        ) from error
