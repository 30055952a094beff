"""The training loop on prepared arrays: what stands between `MLP` and the kernels.

Nothing here checks, converts or copies, but for `without_zeros`: `network.py` has done so. Every
function works on a `Network`, whose arrays are plain, contiguous and of one dtype, and calls the
kernels of the backend in use. `train_steps` is the one loop over batches: it takes arrays and
numbers, changes the parameters, the optimizer's slots, two counters and the running totals in
place, and asks Python for nothing in between.
"""

import contextlib
import dataclasses
import itertools
import math
import mmap
import signal
import threading
import time
from functools import cached_property
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from . import backends
from ._custom import Kernels, engine_for, kernels_for
from ._sparse import Entries, SparseRows, frequent_numbers
from .losses import Custom as CustomLoss
from .reference import CUSTOM, GELU, LINEAR, SILU

# A cache line, and a vector of the widest instruction set: loads from these arrays don't straddle.
_ALIGNMENT = 64
_HUGE_PAGE = 1 << 21

# Slots begin so many bytes farther behind a page's start than parameters do: at the same place of a
# page the three would meet in the same sets of the caches, and Adam took a sixth longer.
_STAGGER = 1344

# Rows that go through the network at once where nobody says otherwise: the activations of a small
# network then stay in a core's second-level cache.
ROWS = 512

# The largest share of nonzero inputs with which the first layer goes from one to the next of them;
# beyond it, a dense product is faster.
SPARSE_DENSITY = 0.3

# Inputs and outputs of a first layer with which rows with shifts are faster than dense ones, up to
# the same share and in batches of 32 or more. With 8 outputs they took up to 1.4 times as long.
_SHIFTED_UNITS = 64

# Inputs to look through for each thread: creating one takes as long as a tenth of them.
_THREADED_INPUTS = 1 << 18

# Multiplications of a forward pass for each thread. With fewer in a step of training, they wait for
# each other too often; a prediction has to start them first.
_THREADED_TRAINING = 60_000
_THREADED_PREDICTION = 8_000_000

# Multiplications of a forward pass in one call, while which nobody hears Ctrl-C: some 40 ms.
_INFERRED_PRODUCTS = 2_000_000_000

# The most steps of one call: of the smallest networks, as many as fit between two looks for Ctrl-C;
# of a learning rate that is a Python function, few that go to waste.
_STEPS_AHEAD = 1 << 15
_SCHEDULED_STEPS_AHEAD = 1000


class Data(NamedTuple):
    """Rows to train on or to score: inputs (n, I), dense or sparse, targets as the loss takes them.

    `labels` is what accuracy is counted against, None for regression; `sample_weight` (n,) may be
    None.
    """

    inputs: np.ndarray | SparseRows
    targets: np.ndarray
    labels: np.ndarray | None
    sample_weight: np.ndarray | None

    def part(self, start, stop):
        """Some consecutive rows, as views."""
        return Data(*(array if array is None else array[start:stop] for array in self))


class Network:
    """Layers as the kernels take them, and all the parameters in one array.

    Attributes
    ----------
    sizes : tuple of int
        Units of the inputs and of each layer.
    codes, slopes : tuple
        Activation of each layer in training, and its parameter. Those that users wrote have codes
        from `CUSTOM` on, by their layer.
    functions : tuple
        The activation of each layer that users wrote, None elsewhere.
    custom : bool
        Whether there is one, or they wrote the loss.
    output_code : int
        What prediction still applies to the last layer's outputs: its activation, where the loss
        works from logits, and nothing (linear) otherwise.
    dropout : tuple of float
        Rate after each layer, 0 after the last.
    loss : Loss
    from_logits : bool
    l1, l2 : float
        Penalties of the weights (not the biases).
    penalties : list of tuple
        (l1, l2) of each array, for all but the engines.
    extras : object or None
        What a step does beyond what the engines know, and they leave such a network to single
        kernels: `batch(kernels, network, data)` gives the rows to take for those of a batch, and
        `update(kernels, network, state, workspace, learning_rate, start, outputs)` updates.
    seed : int
        Of dropout and shuffling.
    parameters : ndarray (p,)
        Layer after layer, weights row by row, then biases; `arrays` and `layers` are views of it.
    arrays : list of ndarray
        W1 (I, O), b1 (O,), W2, b2, ...
    layers : list of tuple
        The same in pairs.
    iterations : int
        Steps taken, the counter of dropout.
    epochs : int
        Passes begun, the counter of shuffling.
    """

    def __init__(self, sizes, activations, dropout, loss, l1, l2, seed, dtype):
        output = activations[-1]
        self.sizes = sizes
        self.from_logits = loss.from_logits(output.name)
        self.functions = tuple(each if each.code == CUSTOM else None for each in activations)
        self.custom = any(self.functions) or isinstance(loss, CustomLoss)
        self.codes = tuple(
            activation.code + (layer if activation.code == CUSTOM else 0)
            for layer, activation in enumerate(activations)
        )
        self.output_code = LINEAR
        if self.from_logits:
            self.codes, self.output_code = (*self.codes[:-1], LINEAR), output.code
        self.slopes = tuple(activation.slope for activation in activations)
        self.dropout = (*dropout, 0.0)
        self.loss = loss
        self.penalise(l1, l2)
        self.extras = None
        self.seed = seed
        self.iterations = self.epochs = 0
        self._bind(aligned_zeros(sum((i + 1) * o for i, o in itertools.pairwise(sizes)), dtype))

    @property
    def layout(self):
        """Sizes, activations and slopes as the engine takes them."""
        return (
            np.array(self.sizes, np.int64),
            np.array(self.codes, np.int64),
            np.array(self.slopes, np.float64),
        )

    def prediction_layout(self, output_code):
        """The same, with what prediction applies to the outputs, then the parameters."""
        sizes, codes, slopes = self.layout
        if output_code != LINEAR:
            codes[-1] = output_code
        return sizes, codes, slopes, self.parameters

    def predict_few(self, X, out):
        """What `MLP.predict` returns, for arrays that the compiled kernel can take as they are.

        None elsewhere, as for many rows, deep networks and in the other backends.
        """
        kernels = backends.current()
        if kernels not in self._predictors:
            self._predictors[kernels] = (
                kernels.Predictor(*self.prediction_layout(self.output_code))
                if _compiled(kernels_for(self), self)
                else _no_predictor
            )
        return self._predictors[kernels](X, out)

    def penalise(self, l1, l2):
        """Take these penalties for all weights from the next step on."""
        self.l1, self.l2 = l1, l2 = float(l1), float(l2)
        self.penalties = [(l1, l2), (0.0, 0.0)] * (len(self.sizes) - 1)

    def _bind(self, parameters):
        self.parameters = parameters
        self._predictors = {}  # by the module of kernels
        self.arrays = self.views(parameters)
        self.layers = list(zip(self.arrays[0::2], self.arrays[1::2], strict=True))

    def views(self, flat):
        """W1 (I, O), b1 (O,), ..., as views of an array like `parameters`."""
        arrays, start = [], 0
        for inputs, outputs in itertools.pairwise(self.sizes):
            for shape in ((inputs, outputs), (outputs,)):
                stop = start + math.prod(shape)
                arrays.append(flat[start:stop].reshape(shape))
                start = stop
        return arrays

    # Views that are copied or pickled become arrays of their own, and a predictor knows where the
    # parameters are: leave them out and make new ones.

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["arrays"], state["layers"], state["_predictors"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        parameters = aligned_zeros(len(self.parameters), self.parameters.dtype)
        parameters[...] = self.parameters
        self._bind(parameters)


def _no_predictor(X, out):
    """Leaves all prediction to the general way."""


class OptimizerState:
    """An optimizer at work on one network.

    Attributes
    ----------
    given : Optimizer
    optimizer : Optimizer
        The same, unless the learning rate was changed since.
    slots : dict of str to ndarray (p,)
    iterations : int
        Steps taken with it.
    """

    def __init__(self, optimizer, network):
        self.given = self.optimizer = optimizer
        size, dtype = len(network.parameters), network.parameters.dtype
        self.slots = {
            name: aligned_zeros(size, dtype, _STAGGER * place)
            for place, name in enumerate(optimizer.slots, 1)
        }
        self.iterations = 0

    # What is unpickled may lie in memory that can't be written, as a file that is mapped.

    def __setstate__(self, state):
        self.__dict__.update(state)
        slots = self.slots.items()
        self.slots = {}
        for place, (name, slot) in enumerate(slots, 1):
            self.slots[name] = aligned_zeros(len(slot), slot.dtype, _STAGGER * place)
            self.slots[name][...] = slot

    def rates(self, most):
        """The learning rates of the next steps: of `most`, or of as many as a call should take."""
        if not callable(self.optimizer.learning_rate):
            return np.full(min(most, _STEPS_AHEAD), self.optimizer.learning_rate)
        steps = range(min(most, _SCHEDULED_STEPS_AHEAD))
        return np.array([self.optimizer.rate(self.iterations + step) for step in steps])

    def set_learning_rate(self, value):
        """Replace a learning rate that is a number."""
        if callable(self.optimizer.learning_rate):
            raise TypeError("learning_rate: the optimizer follows a schedule, so it can't be set")
        self.optimizer = dataclasses.replace(self.optimizer, learning_rate=value)


class Workspace:
    """The memory that passes through a network need, allocated when first used and then kept.

    Parameters
    ----------
    network : Network
    threads : int, optional
        The engine's; without it, what a step is worth.
    """

    def __init__(self, network, threads=None):
        self._network = network
        self.threads = threads
        self._batches = {}
        self._outputs = {}
        self._choice = ThreadChoice(1)

    def choice(self, batch_size):
        """The choice of threads for steps of so many rows."""
        most = self.threads or _threads(self._network, batch_size)
        if self._choice.most != most:
            self._choice = ThreadChoice(most)
        return self._choice

    def batch(self, rows):
        """The memory for a batch of so many rows."""
        if rows not in self._batches:
            self._batches[rows] = _Batch(self._network, rows)
        return self._batches[rows]

    def outputs(self, rows):
        """The memory for the last layer alone, as part of a batch."""
        if rows not in self._outputs:
            shape, dtype = (rows, self._network.sizes[-1]), self._network.parameters.dtype
            self._outputs[rows] = SimpleNamespace(
                outputs=[np.empty(shape, dtype)], gradients=[np.empty(shape, dtype)]
            )
        return self._outputs[rows]

    @cached_property
    def gradients(self):
        """Gradients of all parameters, (p,)."""
        return aligned_zeros(len(self._network.parameters), self._network.parameters.dtype)

    @cached_property
    def gradient_arrays(self):
        """Views of them: W1, b1, W2, b2, ..."""
        return self._network.views(self.gradients)


class ThreadChoice:
    """How many threads take the next steps: `most`, or half of them where these are faster.

    Two processors of the system may be one core, as they mostly are on rented machines, or busy
    with something else. Then half the threads, each with a core's caches for itself, can be faster
    by a quarter, and only a trial tells. Results are the same, bit for bit, for any number.

    Parameters
    ----------
    most : int
        At least 2; 1 leaves no choice.
    """

    # Seconds of a trial: the fewest and, if so many steps take as long, the most. A call of the
    # engine may take as long as three steps before the first.
    TRIAL, MOST_TRIAL = 0.003, 0.012
    TRIAL_STEPS = 16

    # Seconds between trials: they come less often while nothing changes, and where a step is long.
    FIRST, LAST = 0.1, 0.4
    SELDOM = 30

    # How much faster the other number has to be.
    GAIN = 1.05

    def __init__(self, most):
        self.most = most
        self.threads = most
        self._other = most // 2
        self._trying = False
        self._wait = self.FIRST
        self._since = 0.0
        self._seconds, self._steps = 0.0, 0
        self._pace = 0.0

    @property
    def _trial(self):
        return max(self.TRIAL, min(self.TRIAL_STEPS * self._pace, self.MOST_TRIAL))

    def limit(self, seconds):
        """How long the next steps may take, where they are to return after so many seconds."""
        return min(seconds, self._trial) if self._trying else seconds

    def took(self, seconds, steps):
        """Note how long steps took with `threads`; chooses those of the next."""
        self._seconds += seconds
        self._steps += steps
        if self._seconds < self.TRIAL:
            return
        pace = self._seconds / self._steps
        self._since += self._seconds
        self._seconds, self._steps = 0.0, 0
        if self._trying:
            if pace * self.GAIN < self._pace:
                self._wait, self._trying = self.FIRST, False
            else:
                self._wait = min(2 * self._wait, self.LAST)
                self._swap()
            return
        self._pace = pace
        if self._since >= max(self._wait, self.SELDOM * max(self._trial, pace)):
            self._swap()

    def _swap(self):
        self.threads, self._other = self._other, self.threads
        self._trying, self._since = not self._trying, 0.0


class _Batch:
    """What a batch of rows becomes in a network, layer by layer; each array is (rows, units)."""

    def __init__(self, network, rows):
        self._network = network
        self._rows = rows
        self.outputs = self._per_layer(network.sizes[1:])

    def _per_layer(self, units):
        dtype = self._network.parameters.dtype
        return [
            aligned_zeros(self._rows * count, dtype).reshape(self._rows, count) for count in units
        ]

    @cached_property
    def preactivations(self):
        # Only the backward pass of silu, gelu and users' own looks at what the activation took.
        return [
            np.empty_like(outputs) if code in (SILU, GELU) or code >= CUSTOM else outputs
            for outputs, code in zip(self.outputs, self._network.codes, strict=True)
        ]

    @cached_property
    def dropped(self):
        return [
            np.empty_like(outputs) if rate else None
            for outputs, rate in zip(self.outputs, self._network.dropout, strict=True)
        ]

    @cached_property
    def gradients(self):
        return self._per_layer(self._network.sizes[1:])

    @cached_property
    def inputs(self):
        return self._per_layer(self._network.sizes[:1])[0]


def aligned_zeros(size, dtype, behind=0):
    """Zeros (size,) that start on a cache line, or so many bytes behind the start of a huge page.

    Large arrays lie in huge pages. In small pages, which lie anywhere in memory, parameters and
    slots that would fit a core's second-level cache compete for parts of it: a step took a quarter
    longer.
    """
    alignment = _ALIGNMENT
    length = size * dtype.itemsize
    if length >= _HUGE_PAGE // 8 and hasattr(mmap, "MADV_HUGEPAGE"):
        alignment = _HUGE_PAGE
        try:
            memory = mmap.mmap(
                -1, length + behind + alignment, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        except (OSError, OverflowError) as error:
            raise MemoryError(f"no {length:,} bytes of memory to be had") from error
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        array = np.frombuffer(memory, np.uint8)
    else:
        array, behind = np.zeros(length + alignment, np.uint8), 0
    start = behind + -array.ctypes.data % alignment
    return array[start : start + length].view(dtype)


# ------------------------------------------------------------------------------------- the passes


def train_steps(
    network, state, workspace, data, order, batch_size, first, learning_rates, totals, limit
):
    """Take steps `first`, `first` + 1, ... of an epoch and of those after it.

    Parameters
    ----------
    network : Network
        Its parameters, `iterations` and `epochs` change.
    state : OptimizerState
        Its slots and `iterations` change.
    workspace : Workspace
    data : Data
    order : ndarray of int64 (n,) or None
        Receives each epoch's order of the rows at its first step, and holds it for later calls.
        Without it rows are taken as they come.
    batch_size : int
        The last batch of an epoch has the rows that are left.
    first : int
    learning_rates : ndarray of float64 (steps,)
    totals : ndarray of float64 (epochs, 3)
        For each epoch that the steps reach into receives, added up in order: loss times rows,
        right rows, rows.
    limit : float
        Seconds after which no further step is begun.

    Returns
    -------
    int
        Steps taken, at least 1.

    Ctrl-C waits for the end of a step, so that parameters, slots and counters agree.
    """
    kernels = kernels_for(network, state.optimizer)
    engine = engine_for(kernels, network)
    steps = math.ceil(len(data.inputs) / batch_size)
    epoch = network.epochs - (first > 0)
    with interrupts_held() as interrupts:
        if engine is not None:
            taken = _compiled_steps(
                engine,
                kernels,
                network,
                state,
                workspace,
                data,
                order,
                epoch,
                batch_size,
                first,
                learning_rates,
                totals,
                limit,
            )
            network.iterations += taken
            state.iterations += taken
            network.epochs = epoch + math.ceil((first + taken) / steps)
            return taken
        until = limit and time.perf_counter() + limit
        for taken, learning_rate in enumerate(learning_rates.tolist(), 1):
            later, step = divmod(first + taken - 1, steps)
            if step == 0:
                network.epochs = epoch + later + 1
                if order is not None:
                    kernels.permutation(network.seed, epoch + later, order)
            _step(
                kernels,
                network,
                state,
                workspace,
                data,
                order,
                step * batch_size,
                batch_size,
                learning_rate,
                totals[later],
            )
            if interrupts or not limit or time.perf_counter() >= until:
                break
    return taken


def _step(
    kernels, network, state, workspace, data, order, start, batch_size, learning_rate, totals
):
    """One step, kernel by kernel: what the engine does in one call for many."""
    rows = min(batch_size, len(data.inputs) - start)
    batch = workspace.batch(rows)
    chosen = _take(data, order, start, start + rows, batch.inputs)
    extras = network.extras
    if extras:
        chosen = extras.batch(kernels, network, chosen)
    loss = _loss_and_gradients(kernels, network, workspace, chosen, network.iterations)
    loss += _add_penalties(kernels, network, workspace)
    if extras:
        outputs = batch.outputs[-1]
        extras.update(kernels, network, state, workspace, learning_rate, start, outputs)
    else:
        update(kernels, network, state, workspace, learning_rate)
    network.iterations += 1
    state.iterations += 1
    totals[0] += loss * rows
    totals[1] += _correct(network, batch, chosen)
    totals[2] += rows


def _compiled_steps(
    engine,
    kernels,
    network,
    state,
    workspace,
    data,
    order,
    epoch,
    batch_size,
    first,
    learning_rates,
    totals,
    limit,
):
    optimizer = state.optimizer
    limits = [
        math.inf if value is None else value
        for value in (optimizer.clipvalue, optimizer.clipnorm, optimizer.global_clipnorm)
    ]
    clips = min(limits) < math.inf
    slots = [*state.slots.values(), None, None]
    loss = network.loss.kernel(data.targets)
    arguments = network.loss.arguments(network.from_logits)
    written = isinstance(kernels, Kernels)
    choice = workspace.choice(batch_size)
    begun = time.perf_counter() if choice.most > 1 else None
    taken = engine.train_steps(
        *network.layout,
        np.array(network.dropout),
        loss,
        network.from_logits,
        arguments[-1] if arguments else 0.0,
        network.l1,
        network.l2,
        network.seed,
        network.iterations,
        *optimizer.rule(),
        optimizer.weight_decay,
        *limits,
        state.iterations,
        network.parameters,
        slots[0],
        slots[1],
        workspace.gradients if clips else None,
        *_dense_and_sparse(data.inputs, engine, coded=True),
        data.targets,
        data.labels if loss.endswith("categorical_crossentropy") else None,
        data.sample_weight,
        order,
        epoch,
        batch_size,
        first,
        learning_rates,
        totals,
        choice.limit(limit),
        choice.threads,
        **({"functions": kernels, "slots": list(state.slots.values())} if written else {}),
    )
    if begun is not None:
        choice.took(time.perf_counter() - begun, taken)
    return taken


def _compiled(kernels, network):
    """Whether these kernels have the engine that takes whole epochs, and the network's depth."""
    return len(network.layers) <= getattr(kernels, "MOST_LAYERS", 0)


def without_zeros(network, inputs, training=False):
    """Inputs as training or prediction goes through them fastest, and whether all are finite.

    They become SparseRows where they are mostly zeros, or the same numbers in each column, and the
    engine in use can skip these. The second result is None where the kernels don't look for that.
    """
    kernels = kernels_for(network)
    if isinstance(inputs, SparseRows) or engine_for(kernels, network) is None:
        return inputs, None
    finite, rows = _sparse_rows(kernels, inputs, training)
    if finite and rows is None and wants_shifts(network):
        shifts = frequent_numbers(inputs, SPARSE_DENSITY)
        if shifts is not None:
            _, rows = _sparse_rows(kernels, inputs, training, shifts)
    return inputs if rows is None else rows, finite


def _sparse_rows(kernels, inputs, training, *shifts):
    """Whether inputs are finite; and they as SparseRows, for training coded, if mostly zeros."""
    workers, features = _workers(inputs.size), inputs.shape[1]
    if training and _takes_codes(kernels):
        coded = kernels.coded_rows(inputs, SPARSE_DENSITY, workers, *shifts)
        if coded is not None:
            starts, live, codes = coded
            return True, SparseRows(starts, Entries(codes=codes), features, live, *shifts)
    finite, arrays = kernels.sparse_rows(inputs, SPARSE_DENSITY, workers, *shifts)
    if arrays is None:
        return finite, None
    starts, columns, values, live = arrays
    return finite, SparseRows(starts, Entries(columns, values), features, live, *shifts)


def wants_shifts(network):
    """Whether rows that are the same numbers in each column may become SparseRows with shifts."""
    engine = engine_for(kernels_for(network), network)
    return _takes_codes(engine) and min(network.sizes[:2]) >= _SHIFTED_UNITS


def _takes_codes(engine):
    """Whether an engine knows shifts and codes of sparse rows: the compiled one, with BLOCKS."""
    return hasattr(engine, "BLOCKS")


def _dense_and_sparse(inputs, engine, coded=False):
    """Inputs as the two arguments of an engine for them, one of which is None.

    For training, `coded`, values that are few are named by numbers.
    """
    if not isinstance(inputs, SparseRows):
        return inputs, None
    if not _takes_codes(engine):
        # An optimizer that users wrote has another engine than the one that the rows were made for.
        return (None, inputs.arrays) if inputs.shifts is None else (inputs.dense, None)
    codes = inputs.codes(engine, _workers(int(inputs.starts[-1]))) if coded else None
    entries = (None, None) if codes else (inputs.columns, inputs.values)
    more = *inputs.blocks(engine), inputs.shifts, codes
    return None, (inputs.starts, *entries, inputs.live, *more)


def _workers(elements):
    """How many threads so many elements to look through are worth."""
    return max(1, min(backends.available_threads(), elements // _THREADED_INPUTS))


def cut(network, data):
    """Cut the rows of sparse data into the engine's blocks, and code them, now; both are kept."""
    kernels = kernels_for(network)
    if _compiled(kernels, network):
        _dense_and_sparse(data.inputs, kernels, coded=True)


def _dense(inputs):
    """Inputs as the kernels for single layers take them."""
    return inputs.toarray() if isinstance(inputs, SparseRows) else inputs


def training_threads(network, batch_size):
    """How many threads train a network."""
    kernels = kernels_for(network)
    return _threads(network, batch_size) if _compiled(kernels, network) else 1


def _threads(network, rows, products=_THREADED_TRAINING):
    """How many threads so many rows at once are worth, of those the process may use."""
    worth = rows * len(network.parameters) // products
    # To ask the system takes longer than many a step.
    return min(backends.available_threads(), worth) if worth > 1 else 1


def gradients(network, data, workspace=None):
    """Loss of all rows as one batch, without dropout, and its gradient in each array."""
    kernels = kernels_for(network)
    workspace = workspace or Workspace(network)
    rows = len(data.inputs)
    if isinstance(data.inputs, SparseRows) and rows > ROWS:
        # All at once, they may be too many to be dense.
        loss, sums = 0.0, np.zeros_like(workspace.gradients)
        for start in range(0, rows, ROWS):
            part = data.part(start, start + ROWS)
            share = len(part.inputs) / rows
            loss += share * _loss_and_gradients(kernels, network, workspace, part, None)
            sums += share * workspace.gradients
        workspace.gradients[...] = sums
    else:
        loss = _loss_and_gradients(kernels, network, workspace, data, None)
    loss += _add_penalties(kernels, network, workspace)
    return loss, workspace.gradient_arrays


def add_up(network, workspace, data, order, start, stop, step):
    """The `totals` of some rows as one batch with the dropout of a step.

    The workspace receives their gradients, without penalties.
    """
    kernels = kernels_for(network)
    batch = workspace.batch(stop - start)
    chosen = _take(data, order, start, stop, batch.inputs)
    loss = _loss_and_gradients(kernels, network, workspace, chosen, step)
    rows = stop - start
    return np.array([loss * rows, _correct(network, batch, chosen), rows])


def take_step(network, state, workspace, learning_rate):
    """Add the penalties to the gradients in the workspace, and update; returns the penalties."""
    kernels = kernels_for(network, state.optimizer)
    penalties = _add_penalties(kernels, network, workspace)
    update(kernels, network, state, workspace, learning_rate)
    network.iterations += 1
    state.iterations += 1
    return penalties


def shuffle(network, epoch, order):
    """Write the order of the rows in an epoch, by its number, to an array (n,)."""
    kernels_for(network).permutation(network.seed, epoch, order)


def evaluate(network, data, workspace=None, batch_size=ROWS):
    """The `totals` of `train_steps` for all rows, penalties included, nothing being trained."""
    kernels = kernels_for(network)
    workspace = workspace or Workspace(network)
    totals = np.zeros(3)
    if _compiled(kernels, network):
        rows = len(data.inputs)
        batch = workspace.outputs(rows)
        threads = workspace.threads or _threads(network, rows, _THREADED_PREDICTION)
        layout = *network.layout, network.parameters
        _infer(kernels, layout, data.inputs, batch.outputs[-1], threads)
        loss = _loss(kernels, network, batch, data)
        totals += (loss * rows, _correct(network, batch, data), rows)
    else:
        for start in range(0, len(data.inputs), batch_size):
            part = data.part(start, start + batch_size)
            rows = len(part.inputs)
            batch = workspace.batch(rows)
            _forward(kernels, network, batch, _dense(part.inputs), None)
            loss = _loss(kernels, network, batch, part)
            totals += (loss * rows, _correct(network, batch, part), rows)
    totals[0] += _add_penalties(kernels, network, workspace) * totals[2]
    return totals


def predict(network, inputs, output_code, out):
    """Write what the activation `output_code` makes of the outputs for inputs (n, I) to out (n, O).

    That is `network.output_code`, or the one that turns logits into probabilities.
    """
    kernels = kernels_for(network)
    if _compiled(kernels, network):
        threads = _threads(network, len(inputs), _THREADED_PREDICTION)
        _infer(kernels, network.prediction_layout(output_code), inputs, out, threads)
        return
    workspace = Workspace(network)
    for start in range(0, len(inputs), ROWS):
        part = inputs[start : start + ROWS]
        fed = _forward(kernels, network, workspace.batch(len(part)), _dense(part), None)
        kernels.activation_forward(
            fed[-1], output_code, network.slopes[-1], out[start : start + ROWS]
        )


def _infer(kernels, layout, inputs, outputs, threads):
    """Outputs of a network that is `layout`, so many rows at a time that Ctrl-C comes through."""
    rows = max(_INFERRED_PRODUCTS // layout[-1].size, 1)
    for start in range(0, len(inputs), rows):
        part = inputs if rows >= len(inputs) else inputs[start : start + rows]
        kernels.infer(
            *layout, *_dense_and_sparse(part, kernels), outputs[start : start + rows], threads
        )


# ------------------------------------------------------------------------------- parts of a step


def _take(data, order, start, stop, inputs):
    """The rows of one batch; those out of order are gathered, inputs into `inputs`."""
    if order is None:
        return data.part(start, stop)
    rows = order[start:stop]
    if isinstance(data.inputs, SparseRows):
        data.inputs.toarray(rows, out=inputs)
    else:
        # The mode that writes to `out` directly; the rows are in range.
        np.take(data.inputs, rows, axis=0, out=inputs, mode="clip")
    others = (array if array is None else array[rows] for array in data[1:])
    return Data(inputs, *others)


def _loss_and_gradients(kernels, network, workspace, data, step):
    """The loss of all rows as one batch; its gradients, without penalties, go to the workspace."""
    batch = workspace.batch(len(data.inputs))
    fed = _forward(kernels, network, batch, _dense(data.inputs), step)
    loss = _loss(kernels, network, batch, data)
    _backward(kernels, network, batch, fed, step, workspace.gradient_arrays)
    return loss


def _forward(kernels, network, batch, inputs, step):
    """Run the layers, with the dropout of step number `step` unless that is None.

    Returns what each layer was fed, then the last layer's outputs.
    """
    fed = [inputs]
    for layer, (weights, bias) in enumerate(network.layers):
        outputs = batch.outputs[layer]
        kernels.dense_forward(
            fed[layer],
            weights,
            bias,
            network.codes[layer],
            network.slopes[layer],
            batch.preactivations[layer],
            outputs,
        )
        rate = network.dropout[layer]
        if rate and step is not None:
            kernels.dropout(outputs, rate, network.seed, step, layer, batch.dropped[layer])
            outputs = batch.dropped[layer]
        fed.append(outputs)
    return fed


def _loss(kernels, network, batch, data):
    """The loss of a batch after `_forward`; its gradient goes to the last of batch.gradients."""
    return getattr(kernels, network.loss.kernel(data.targets))(
        data.targets,
        batch.outputs[-1],
        data.sample_weight,
        *network.loss.arguments(network.from_logits),
        batch.gradients[-1],
    )


def _backward(kernels, network, batch, fed, step, gradient_arrays):
    """After `_loss`, write the gradients of all weights and biases."""
    for layer in reversed(range(len(network.layers))):
        gradients = batch.gradients[layer]
        rate = network.dropout[layer]
        if rate and step is not None:
            kernels.dropout(gradients, rate, network.seed, step, layer, gradients)
        kernels.dense_backward(
            fed[layer],
            network.layers[layer][0],
            batch.preactivations[layer],
            batch.outputs[layer],
            gradients,
            network.codes[layer],
            network.slopes[layer],
            gradients,
            batch.gradients[layer - 1] if layer else None,
            gradient_arrays[2 * layer],
            gradient_arrays[2 * layer + 1],
        )


def _add_penalties(kernels, network, workspace):
    """The L1 and L2 penalties of all arrays; their gradients are added."""
    if not any(map(any, network.penalties)):
        return 0.0
    return sum(
        kernels.add_penalty(array, l1, l2, gradients)
        for array, (l1, l2), gradients in zip(
            network.arrays, network.penalties, workspace.gradient_arrays, strict=True
        )
        if l1 or l2
    )


def update(kernels, network, state, workspace, learning_rate):
    """The optimizer's step, from the gradients in the workspace."""
    optimizer = state.optimizer
    clip(optimizer, workspace)
    # Plain gradient descent has no slot, and its kernel wants None for the velocity.
    slots = state.slots.values() or (None,)
    getattr(kernels, optimizer.kernel)(
        network.parameters,
        workspace.gradients,
        *slots,
        learning_rate,
        *optimizer.arguments(state.iterations),
    )


def clip(optimizer, workspace):
    """Limit the gradients in the workspace as the optimizer wants it."""
    if optimizer.clipvalue is not None:
        limit = optimizer.clipvalue
        np.clip(workspace.gradients, -limit, limit, out=workspace.gradients)
    elif optimizer.global_clipnorm is not None:
        _limit_norm(workspace.gradients, optimizer.global_clipnorm)
    elif optimizer.clipnorm is not None:
        for gradients in workspace.gradient_arrays:
            _limit_norm(gradients.reshape(-1), optimizer.clipnorm)


def _limit_norm(gradients, limit):
    norm = math.sqrt(gradients @ gradients)
    if norm > limit:
        gradients *= limit / norm


def _correct(network, batch, data):
    """How many rows of a batch are right; 0 where that means nothing."""
    if data.labels is None:
        return 0
    return network.loss.correct(data.labels, batch.outputs[-1], network.from_logits)


@contextlib.contextmanager
def interrupts_held():
    """Keep Ctrl-C from breaking into the block: gives a list that is filled when it is pressed.

    The interrupt is raised at the end of the block. Outside the main thread, and where the program
    handles the signal in its own way, nothing is changed.
    """
    interrupts = []
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield interrupts
        return
    signal.signal(signal.SIGINT, lambda *caught: interrupts.append(caught))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts:
        raise KeyboardInterrupt
