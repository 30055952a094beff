"""Types of the compiled kernels; what each does stands in reference.py."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

_Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Integers: TypeAlias = npt.NDArray[np.int64]
_Rows: TypeAlias = tuple[_Integers, npt.NDArray[np.int32], _Floats, npt.NDArray[np.int32]]
_Coded: TypeAlias = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8], _Floats]
_Sparse: TypeAlias = tuple[
    _Integers,
    npt.NDArray[np.int32] | None,
    _Floats | None,
    npt.NDArray[np.int32],
    _Integers,
    npt.NDArray[np.int32],
    _Floats | None,
    _Coded | None,
]

CPU_LEVEL: str
DEBUG: bool

def exp(inputs: _Floats, outputs: _Floats) -> None: ...
def log(inputs: _Floats, outputs: _Floats) -> None: ...
def log1p(inputs: _Floats, outputs: _Floats) -> None: ...
def expm1(inputs: _Floats, outputs: _Floats) -> None: ...
def tanh(inputs: _Floats, outputs: _Floats) -> None: ...
def sigmoid(inputs: _Floats, outputs: _Floats) -> None: ...
def activation_forward(
    inputs: _Floats, activation: int, slope: float, outputs: _Floats
) -> None: ...
def activation_backward(
    inputs: _Floats,
    outputs: _Floats,
    grad_outputs: _Floats,
    activation: int,
    slope: float,
    grad_inputs: _Floats,
) -> None: ...
def matmul(
    left: _Floats,
    right: _Floats,
    transpose_left: bool,
    transpose_right: bool,
    outputs: _Floats,
) -> None: ...
def dense_forward(
    inputs: _Floats,
    weights: _Floats,
    bias: _Floats,
    activation: int,
    slope: float,
    preactivations: _Floats,
    outputs: _Floats,
) -> None: ...
def dense_backward(
    inputs: _Floats,
    weights: _Floats,
    preactivations: _Floats,
    outputs: _Floats,
    grad_outputs: _Floats,
    activation: int,
    slope: float,
    grad_preactivations: _Floats,
    grad_inputs: _Floats | None,
    grad_weights: _Floats,
    grad_bias: _Floats,
) -> None: ...
def binary_crossentropy(
    targets: _Floats,
    predictions: _Floats,
    sample_weight: _Floats | None,
    from_logits: bool,
    label_smoothing: float,
    gradients: _Floats,
) -> float: ...
def categorical_crossentropy(
    targets: _Floats,
    predictions: _Floats,
    sample_weight: _Floats | None,
    from_logits: bool,
    label_smoothing: float,
    gradients: _Floats,
) -> float: ...
def sparse_categorical_crossentropy(
    targets: _Integers,
    predictions: _Floats,
    sample_weight: _Floats | None,
    from_logits: bool,
    label_smoothing: float,
    gradients: _Floats,
) -> float: ...
def mean_squared_error(
    targets: _Floats,
    predictions: _Floats,
    sample_weight: _Floats | None,
    gradients: _Floats,
) -> float: ...
def mean_absolute_error(
    targets: _Floats,
    predictions: _Floats,
    sample_weight: _Floats | None,
    gradients: _Floats,
) -> float: ...
def huber(
    targets: _Floats,
    predictions: _Floats,
    sample_weight: _Floats | None,
    delta: float,
    gradients: _Floats,
) -> float: ...
def poisson(
    targets: _Floats,
    predictions: _Floats,
    sample_weight: _Floats | None,
    gradients: _Floats,
) -> float: ...
def dropout(
    inputs: _Floats,
    rate: float,
    seed: int,
    step: int,
    layer: int,
    outputs: _Floats,
) -> None: ...
def permutation(seed: int, epoch: int, outputs: _Integers) -> None: ...
def sgd_update(
    parameters: _Floats,
    gradients: _Floats,
    velocity: _Floats | None,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None: ...
def rmsprop_update(
    parameters: _Floats,
    gradients: _Floats,
    mean_square: _Floats,
    learning_rate: float,
    rho: float,
    epsilon: float,
    weight_decay: float,
) -> None: ...
def adam_update(
    parameters: _Floats,
    gradients: _Floats,
    first_moment: _Floats,
    second_moment: _Floats,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    step: int,
    weight_decay: float,
) -> None: ...
def add_penalty(parameters: _Floats, l1: float, l2: float, gradients: _Floats) -> float: ...
def quadratic_features(inputs: _Floats, outputs: _Floats) -> None: ...
def logistic_descent(
    inputs: _Floats,
    targets: _Floats,
    weights: _Floats,
    batches: _Integers,
    method: int,
    learning_rate: float,
    decay: float,
    epsilon: float,
    state: _Floats,
    columns: _Floats | None,
    losses: _Floats | None,
    history: _Floats | None,
) -> None: ...
def planar_descent(
    inputs: _Floats,
    targets: _Floats,
    hidden_sizes: _Integers,
    parameters: _Floats,
    learning_rate: float,
    iterations: int,
    cost_every: int,
    threads: int,
    costs: npt.NDArray[np.float64],
) -> None: ...

MOST_LAYERS: int
BLOCKS: int
UPDATES: tuple[str, ...]
LOSSES: tuple[str, ...]

def train_steps(
    sizes: _Integers,
    activations: _Integers,
    slopes: npt.NDArray[np.float64],
    dropout: npt.NDArray[np.float64],
    loss: str,
    from_logits: bool,
    loss_parameter: float,
    l1: float,
    l2: float,
    seed: int,
    iteration: int,
    update: str,
    momentum: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
    clipvalue: float,
    clipnorm: float,
    global_clipnorm: float,
    updates: int,
    parameters: _Floats,
    first_slot: _Floats | None,
    second_slot: _Floats | None,
    gradients: _Floats | None,
    inputs: _Floats | None,
    sparse: _Sparse | None,
    targets: _Floats | _Integers,
    labels: _Integers | None,
    sample_weight: _Floats | None,
    order: _Integers | None,
    epoch: int,
    batch_size: int,
    first: int,
    rates: npt.NDArray[np.float64],
    totals: npt.NDArray[np.float64],
    limit: float,
    threads: int,
) -> int: ...
def infer(
    sizes: _Integers,
    activations: _Integers,
    slopes: npt.NDArray[np.float64],
    parameters: _Floats,
    inputs: _Floats | None,
    sparse: _Sparse | None,
    outputs: _Floats,
    threads: int,
) -> None: ...

@disjoint_base
class Predictor:
    def __new__(
        cls,
        sizes: _Integers,
        activations: _Integers,
        slopes: npt.NDArray[np.float64],
        parameters: _Floats,
    ) -> Predictor: ...
    def __call__(self, X: object, out: object) -> _Floats | None: ...

def sparse_rows(
    inputs: _Floats, density: float, threads: int, shifts: _Floats | None = None
) -> tuple[bool, _Rows | None]: ...
def coded_rows(
    inputs: _Floats, density: float, threads: int, shifts: _Floats | None = None
) -> tuple[_Integers, npt.NDArray[np.int32], _Coded] | None: ...
def codes_of(
    columns: npt.NDArray[np.int32], values: _Floats, features: int, threads: int
) -> _Coded | None: ...
def part_rows(
    starts: _Integers,
    columns: npt.NDArray[np.int32 | np.uint16],
    edges: _Integers,
    cuts: npt.NDArray[np.int32],
) -> None: ...
