"""Files of estimators: a network's file with parameters and attributes, JSON, in its metadata."""

import json

import numpy as np

from .. import checks
from .._declarative import Declarative, from_config, to_config
from ..network import MLP, read_file

# Of the part that is the estimator's; a reader refuses a number it does not know.
_FORMAT = 1

# The entry of the file's metadata that holds it, and the name of the tensor.
_HEADER = "fastdl.sklearn"
_BEST = f"{_HEADER}.best_parameters"

# Attributes that are not of JSON, and are restored in another way.
_APART = ("network_", "_best_parameters", "_asked")


def save(estimator, path):
    """Write a fitted estimator; `validation_data` stays behind."""
    path = checks.path("path", path)
    if type(estimator).__module__.split(".")[0] != __name__.split(".")[0]:
        raise TypeError(f"{type(estimator).__name__}: only fastdl's own estimators can be saved")
    parameters = estimator.get_params(deep=False) | {"validation_data": None}
    attributes = {
        name: value
        for name, value in vars(estimator).items()
        if name not in parameters and name not in _APART
    }
    header = {
        "format": _FORMAT,
        "class": type(estimator).__name__,
        "parameters": _encoded("parameters", parameters),
        "attributes": _encoded("attributes", attributes),
    }
    best = estimator._best_parameters
    estimator.network_._write(
        path,
        metadata={_HEADER: json.dumps(header)},
        tensors={} if best is None else {_BEST: best},
    )


def load(path, classes):
    """The estimator in a file that `save` wrote, of one of these classes."""
    path = checks.path("path", path)
    metadata, tensors = read_file(path)
    if _HEADER not in metadata:
        raise ValueError(f"{path}: holds a network, but no estimator: read it with fastdl.load")
    network = MLP._read(path, metadata, tensors)
    try:
        header = json.loads(metadata[_HEADER])
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']} is not {_FORMAT}, the one known here")
        by_name = {each.__name__: each for each in classes}
        kind = by_name[checks.choice("class", header["class"], by_name)]
        estimator = kind(**_decoded(header["parameters"]))
        vars(estimator).update(_decoded(header["attributes"]))
        best = tensors.get(_BEST)
        if best is not None and (best.shape, best.dtype) != (
            network._network.parameters.shape,
            network.dtype,
        ):
            raise ValueError(f"{_BEST}: {best.dtype} {best.shape} does not fit the network")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not an estimator saved by fastdl: {error!r}") from error
    estimator.network_, estimator._best_parameters = network, best
    estimator._asked = None
    return estimator


def _encoded(name, value):
    """Types of JSON, from which `_decoded` makes the same again; floats may be infinite."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_encoded(name, each) for each in value]
    if isinstance(value, tuple):
        return {"tuple": _encoded(name, list(value))}
    if isinstance(value, dict):
        pairs = [
            [_encoded(name, key), _encoded(f"{name}: {key}", each)] for key, each in value.items()
        ]
        return {"dict": pairs}
    if isinstance(value, Declarative):
        return {"declarative": _declared(name, value)}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return _encoded(name, value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUO":
        kind = "object" if value.dtype.kind == "O" else value.dtype.str
        return {"array": _encoded(name, value.tolist()), "dtype": kind}
    raise TypeError(f"{name}: {value!r} can't be saved")


def _declared(name, value):
    config = to_config(value)
    try:
        json.dumps(config)
    except TypeError as error:
        raise TypeError(f"{name}: {value!r} holds a function, which can't be saved") from error
    return config


def _decoded(value):
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decoded(value["tuple"]))
    if "dict" in value:
        return {_decoded(key): _decoded(each) for key, each in value["dict"]}
    if "declarative" in value:
        return from_config(value["declarative"])
    return np.array(_decoded(value["array"]), dtype=value["dtype"])
