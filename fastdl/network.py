"""`MLP`: a small dense network that trains on NumPy arrays."""

import contextlib
import copy
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import _custom, _engine, _sparse, activations, backends, checks, losses, optimizers
from ._declarative import from_config, to_config
from ._optional import optional_import
from .blocks import Ahead, Blocks, InTurn, Piece, are_paths
from .callbacks import Callback, CallbackList, Checkpoint, History, ProgressBar

# Limits of the uniform distributions that weights are drawn from, by the fans of a layer. Glorot
# and Bengio, AISTATS 2010; He et al., ICCV 2015; LeCun et al., "Efficient BackProp", 1998.
_INITIAL_LIMITS = {
    "glorot_uniform": lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)),
    "he_uniform": lambda fan_in, fan_out: math.sqrt(6 / fan_in),
    "lecun_uniform": lambda fan_in, fan_out: math.sqrt(3 / fan_in),
}

# More than any memory has room for; fewer than make sizes of arrays overflow.
_MOST_UNITS = 2**31 - 1

# Of saved files; a reader refuses a number it does not know.
_FORMAT = 1

# The entries of a saved file's metadata that hold the settings, and where a training stands.
_HEADER = "fastdl"
_TRAINING = "fastdl.training"

# The names of its other entries, and of tensors that are not the network's, begin with this.
_OTHERS = "fastdl."

# Seconds between two calls of `on_train_progress`.
_PROGRESS_INTERVAL = 0.2

_NAMES = "X", "y", "sample_weight"

# Seconds between two looks for Ctrl-C.
_LISTENING_INTERVAL = 0.05


class Stream(NamedTuple):
    """Rows that come block by block, and what makes `_engine.Data` of some of them."""

    blocks: Blocks
    prepare: Callable

    def feed(self, network, passes, batch_size, first=0, threads=1):
        """What gives the pieces of `Blocks.pieces` for a network in training by so many threads.

        A thread that works beside them takes a core of one, and the others wait for that one: where
        the system reads ahead, to do the rest in turn costs half as much.
        """
        in_turn = threads >= backends.available_threads() and self.blocks.prefetches
        dtype = network.parameters.dtype
        closing = threading.Event()
        pieces = self.blocks.pieces(
            self.prepare, dtype, network.seed, passes, batch_size, first, in_turn, closing
        )
        return InTurn(pieces) if in_turn else Ahead(pieces, closing)


class Training(NamedTuple):
    """What `MLP.fit` is asked for, checked."""

    data: _engine.Data | Stream
    validation: _engine.Data | Stream | None
    epochs: range
    batch_size: int
    optimizer: optimizers.Optimizer
    shuffle: bool
    callbacks: list[Callback]
    verbose: int
    resumed: dict | None = None

    @property
    def streamed(self):
        """Whether the rows come block by block."""
        return isinstance(self.data, Stream)

    @property
    def steps(self):
        """Steps of an epoch, None where the number of rows is not known."""
        rows = self.data.blocks.rows if self.streamed else len(self.data.inputs)
        return rows and math.ceil(rows / self.batch_size)

    @property
    def settings(self):
        """What has to be the same for a training to be resumed exactly."""
        rows = self.data.blocks.settings() if self.streamed else {"rows": len(self.data.inputs)}
        return {"batch_size": self.batch_size, "shuffle": self.shuffle} | rows


class Position(NamedTuple):
    """Where a training stands: `step` steps of `epoch` are taken, with these totals."""

    epoch: int
    step: int
    totals: list
    settings: dict


class MLP:
    """A multilayer perceptron: dense layers, each with an activation and, if hidden, dropout.

    Parameters
    ----------
    sizes : sequence of int
        Number of features, then units of each layer; at least two numbers.
    activation : str, Activation or a sequence of them, default "relu"
        Of the hidden layers: one for all, or one for each. Names as in `fastdl.activations`.
    output_activation : str or Activation, optional
        Of the last layer. Without it the loss decides: softmax for categorical cross-entropy,
        sigmoid for binary cross-entropy, linear for regression. Asked for "linear", a cross-entropy
        takes the network's outputs as logits.
    dropout : float or a sequence of float, default 0.0
        Share of the units that is dropped after each hidden layer while training.
    loss : str or Loss, optional
        Without it binary cross-entropy for one output unit, categorical cross-entropy for more.
        Names as in `fastdl.losses`.
    l1, l2 : float, default 0.0
        `l1 * sum(abs(w)) + l2 * sum(w**2)` over all weights, not the biases, is added to the loss.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters and of all arithmetic.
    seed : int, optional
        Of the first weights, of dropout and of shuffling: the same seed gives the same training.
        Without it one is drawn; `seed` tells it.
    kernel_initializer : {"glorot_uniform", "he_uniform", "lecun_uniform"}
        Distribution of the first weights. Biases start at 0.

    Attributes
    ----------
    weights : list of ndarray
        W1 (I, O), b1 (O,), W2, b2, ...: the arrays that training changes, in place.
    iterations : int
        Training steps taken.
    optimizer : Optimizer or None
        In use since the last `fit`.
    learning_rate : float
        Of the next step; can be set unless the optimizer follows a schedule.
    stop_training : bool
        Set by callbacks.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or they don't go together.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP
    >>> from fastdl.optimizers import Adam
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> net = MLP([2, 8, 1], activation="tanh", seed=1)
    >>> history = net.fit(X, [0, 1, 1, 0], epochs=200, optimizer=Adam(0.05), verbose=0)
    >>> (net.predict(X) > 0.5).ravel()
    array([False,  True,  True, False])
    """

    def __init__(
        self,
        sizes,
        *,
        activation="relu",
        output_activation=None,
        dropout=0.0,
        loss=None,
        l1=0.0,
        l2=0.0,
        dtype="float32",
        seed=None,
        kernel_initializer="glorot_uniform",
    ):
        sizes = checks.sequence("sizes", sizes, "integers")
        sizes = tuple(checks.integer("sizes", size, low=1, high=_MOST_UNITS) for size in sizes)
        if len(sizes) < 2:
            raise ValueError(
                f"sizes: {sizes} has no layer: name the features and each layer's units"
            )
        hidden = len(sizes) - 2
        if loss is None:
            loss = "binary_crossentropy" if sizes[-1] == 1 else "categorical_crossentropy"
        self._loss = losses.get(loss)
        if output_activation is None:
            output_activation = self._loss.output_activation
        self._activations = (
            *_per_layer("activation", activation, hidden, activations.get),
            activations.get(output_activation, "output_activation"),
        )
        self._loss.check_outputs(sizes[-1], self._activations[-1])
        self._dropout = _per_layer(
            "dropout", dropout, hidden, lambda rate: checks.number("dropout", rate, low=0, high=1)
        )
        self._kernel_initializer = checks.choice(
            "kernel_initializer", kernel_initializer, tuple(_INITIAL_LIMITS)
        )
        seed = secrets.randbits(63) if seed is None else checks.seed("seed", seed)
        self._network = _engine.Network(
            sizes,
            self._activations,
            self._dropout,
            self._loss,
            checks.number("l1", l1, low=0),
            checks.number("l2", l2, low=0),
            seed,
            _dtype(dtype),
        )
        self._state = None
        self._position = None
        self.stop_training = False
        generator = np.random.default_rng(seed)
        for weights, _ in self._network.layers:
            limit = _INITIAL_LIMITS[kernel_initializer](*weights.shape)
            weights[...] = generator.uniform(-limit, limit, weights.shape)

    # ------------------------------------------------------------------------ what it consists of

    @property
    def sizes(self):
        """Number of features, then units of each layer."""
        return self._network.sizes

    @property
    def activations(self):
        """The `Activation` of each layer, the last one included."""
        return self._activations

    @property
    def dropout(self):
        """The rate after each hidden layer."""
        return self._dropout

    @property
    def loss(self):
        """The `Loss`."""
        return self._loss

    @property
    def l1(self):
        """The factor of the weights' absolute values in the loss."""
        return self._network.l1

    @property
    def l2(self):
        """The factor of the weights' squares in the loss."""
        return self._network.l2

    @property
    def kernel_initializer(self):
        """The name of the distribution that the first weights were drawn from."""
        return self._kernel_initializer

    @property
    def dtype(self):
        """The dtype of the parameters."""
        return self._network.parameters.dtype

    @property
    def seed(self):
        """The seed, given or drawn."""
        return self._network.seed

    @property
    def weights(self):
        """W1 (I, O), b1 (O,), W2, b2, ...: the arrays that training changes, in place."""
        return list(self._network.arrays)

    @property
    def iterations(self):
        """Training steps taken."""
        return self._network.iterations

    @property
    def optimizer(self):
        """The optimizer in use, None before the first `fit`."""
        return self._state and self._state.optimizer

    @property
    def learning_rate(self):
        """The learning rate of the next step."""
        self._require_optimizer()
        return self._state.optimizer.rate(self._state.iterations)

    @learning_rate.setter
    def learning_rate(self, value):
        self._require_optimizer()
        self._state.set_learning_rate(value)

    def _require_optimizer(self):
        if self._state is None:
            raise AttributeError("learning_rate: there is no optimizer before the first fit")

    # ----------------------------------------------------------------------------------- training

    def fit(
        self,
        X,
        y=None,
        *,
        epochs=1,
        batch_size=32,
        optimizer=None,
        validation_data=None,
        validation_split=0.0,
        shuffle=True,
        sample_weight=None,
        class_weight=None,
        callbacks=None,
        verbose=1,
        initial_epoch=0,
        resume_from=None,
    ):
        """Train on rows X with targets y. A second call goes on from where the first one ended.

        Parameters
        ----------
        X : array_like, scipy.sparse matrix (n, features) or Blocks
            More than two dimensions, such as images, count as one row of features each. Rows that
            memory doesn't hold are read block by block: a `numpy.memmap`, `.npy` or Parquet files
            by their path, and without `y` an iterable of blocks; see `fastdl.Blocks`.
        y : array_like
            For categorical cross-entropy integer labels (n,) or rows (n, classes) of
            probabilities; for binary cross-entropy 0 and 1, (n,) or (n, units); for regression
            (n, units), or (n,) for one unit.
        epochs : int, default 1
            Number of the last epoch: `epochs - initial_epoch` are run.
        batch_size : int, default 32
            Rows of a step; the last step of an epoch takes those that are left.
        optimizer : str or Optimizer, optional
            Without it the one in use goes on, at first Adam. One equal to that in use, or to what
            the last `fit` was given, goes on as well, with the learning rate in use; any other one
            starts afresh, with its moments at zero and its schedule at 0.
        validation_data : tuple (X, y) or (X, y, sample_weight), or Blocks, optional
            Rows that are evaluated after each epoch.
        validation_split : float in [0, 1), default 0.0
            Share of the rows, the last ones before shuffling, to evaluate instead of training on;
            ignored if there is `validation_data`.
        shuffle : bool, default True
            Whether each epoch takes the rows in an order of its own.
        sample_weight : array_like (n,), optional
            Each row's loss is multiplied by it; means are still over the number of rows. Accuracy
            is not weighted.
        class_weight : dict of int to float, optional
            Weight of the rows of each class, instead of `sample_weight`; 1 for those not named.
        callbacks : sequence of Callback, optional
        verbose : {0, 1, 2}, default 1
            Nothing, a progress bar, or a line for each epoch.
        initial_epoch : int, default 0
            Number of the first epoch.
        resume_from : path-like, optional
            File of a `fastdl.callbacks.Checkpoint`: the training that wrote it goes on, in the
            middle of an epoch too, to the same result as if it had never been broken off. All else
            has to be as it was, but `epochs`. The network may be new: it takes over all of the
            file's, with the seed.

        Returns
        -------
        History
            Loss and accuracy of an epoch are means over its steps, weighted by their rows, of what
            each step saw before its update and with dropout; validation is without dropout.

        Raises
        ------
        ValueError, TypeError
            If an argument is out of range, does not fit the network or has the wrong type. Nothing
            is changed then; a wrong block ends the training after the blocks before it.
        OSError
            If a file can't be read.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdl import MLP
        >>> net = MLP([2, 4, 3], seed=0)
        >>> X, y = np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 3
        >>> history = net.fit(X, y, epochs=5, validation_split=0.2, verbose=0)
        >>> [len(values) for values in history.history.values()]
        [5, 5, 5, 5]
        >>> net.iterations
        15
        """
        epochs = checks.integer("epochs", epochs, low=1)
        initial_epoch = checks.integer("initial_epoch", initial_epoch, low=0, high=epochs)
        batch_size = checks.integer("batch_size", batch_size, low=1)
        verbose = checks.integer("verbose", verbose, low=0, high=2)
        shuffle = checks.boolean("shuffle", shuffle)
        callbacks = checked_callbacks("callbacks", callbacks)
        if resume_from is None or optimizer is not None:
            optimizer = self._resolved_optimizer(optimizer)
        data, validation = self._training_data(
            X,
            y,
            sample_weight,
            class_weight,
            validation_data,
            validation_split,
            epochs - initial_epoch,
        )
        training = Training(
            data,
            validation,
            range(initial_epoch, epochs),
            batch_size,
            optimizer,
            shuffle,
            callbacks,
            verbose,
        )
        if resume_from is not None:
            training = self._resume(resume_from, training)
        return self._train(training, _engine.Workspace(self._network))

    def _train(self, training, workspace, listen=None):
        """Train as asked for; after each call of the engine, `listen` is told the steps it took.

        An error that it raises ends the training there.
        """
        self._use(training.optimizer)
        self.stop_training = False
        hooks, history = hooks_for(
            self, training.callbacks, training.epochs.stop, training.steps, training.verbose
        )
        hooks.call("on_train_begin", {})
        if training.resumed:
            hooks.restore(training.resumed["callbacks"])
        try:
            logs = self._train_epochs(training, workspace, hooks, listen)
        finally:
            self._position = None
        hooks.call("on_train_end", logs)
        return history

    def _use(self, optimizer):
        """Go on with an optimizer, or start afresh if it is not the one in use."""
        if self._state is None or optimizer not in (self._state.given, self._state.optimizer):
            self._state = _engine.OptimizerState(optimizer, self._network)

    def _train_epochs(self, training, workspace, hooks, listen):
        """Take as many steps at a time as the hooks allow; returns the last epoch's metrics.

        Where nothing has to happen between epochs, a call goes on from one to the next: an epoch of
        a small network on few rows takes microseconds, less than the way to Python and back.
        """
        network, state, settings = self._network, self._state, training.settings
        validation, streamed = training.validation, training.streamed
        every_step = hooks.overrides("on_train_batch_begin", "on_train_batch_end")
        every_epoch = validation is not None or streamed
        epoch, stop = training.epochs.start, training.epochs.stop
        step, current, logs = 0, 0.0, {}
        if training.resumed:
            position = Position(**training.resumed["position"])
            epoch, step, current = position.epoch, position.step, np.array(position.totals)
            if step:
                hooks.resume_epoch(epoch)
            if training.resumed["stopped"]:
                stop = epoch
        ending, shown = self.stop_training, time.perf_counter()
        with self._feed(training, workspace, stop - epoch, step) as pieces:
            piece = None
            while epoch < stop:
                if step == 0:
                    hooks.call("on_epoch_begin", epoch, {})
                    # What is to end before a step ends with the epoch, which is not cut short.
                    ending = self.stop_training
                if piece is None or step == piece.start + piece.steps:
                    piece = pieces.take()
                    order = self._order(training, piece, step)
                if every_step:
                    hooks.call("on_train_batch_begin", step, {})
                ahead = stop - epoch
                if ahead > 1:
                    ahead = 1 if every_epoch or ending else min(ahead, hooks.epochs_ahead())
                first, steps = step - piece.start, piece.steps
                rates = state.rates(1 if every_step else ahead * steps - first)
                totals = np.zeros((math.ceil((first + len(rates)) / steps), 3))
                totals[0] = current
                begun = network.epochs + (step == 0)
                if streamed and order is not None:
                    network.epochs = piece.key + (first > 0)
                try:
                    # Back here often enough for Ctrl-C.
                    taken = _engine.train_steps(
                        network,
                        state,
                        workspace,
                        piece.data,
                        order,
                        training.batch_size,
                        first,
                        rates,
                        totals,
                        _LISTENING_INTERVAL,
                    )
                finally:
                    if streamed:  # The engine takes each piece for an epoch.
                        network.epochs = begun
                if listen:
                    listen(taken)
                passed, last = divmod(first + taken - 1, steps)
                last += piece.start
                if passed:
                    hooks.pass_epochs(epoch, self._metrics(totals[:passed]), last + 1)
                    epoch += passed
                step, current = last + 1, totals[passed]
                over = piece.last and step == piece.start + steps
                self._position = None if over else Position(epoch, step, current, settings)
                if every_step:
                    hooks.call("on_train_batch_end", last, self._metrics(current))
                now = time.perf_counter()
                if now - shown >= _PROGRESS_INTERVAL and hooks.overrides("on_train_progress"):
                    hooks.call("on_train_progress", last, self._metrics(current))
                    shown = now
                if not over and (ending or not self.stop_training):
                    continue
                hooks.end_epoch(step)
                logs = self._metrics(current)
                if validation is not None:
                    scores = self._metrics(self._scores(validation, workspace=workspace))
                    logs |= {f"val_{name}": value for name, value in scores.items()}
                if over:
                    self._position = Position(epoch + 1, 0, np.zeros(3), settings)
                hooks.call("on_epoch_end", epoch, logs)
                if self.stop_training:
                    break
                epoch, step, current, piece = epoch + 1, 0, 0.0, None
        return logs

    @contextlib.contextmanager
    def _feed(self, training, workspace, epochs, step):
        """What gives the pieces of so many epochs, from a step of the first on."""
        network, data = self._network, training.data
        if not training.streamed:
            yield _Whole(Piece(data, 0, training.steps, True, None))
            return
        passed = network.epochs - (step > 0)
        passes = range(passed, passed + epochs) if training.shuffle else [None] * epochs
        threads = workspace.threads or _engine.training_threads(network, training.batch_size)
        pieces = data.feed(network, passes, training.batch_size, step, threads)
        try:
            yield pieces
        finally:
            pieces.close()

    def _order(self, training, piece, step):
        """An array for the order of a piece's rows; the engine fills it, or did before a resume."""
        if not training.shuffle:
            return None
        order = np.empty(len(piece.data.inputs), np.int64)
        if step > piece.start:
            key = piece.key if training.streamed else self._network.epochs - 1
            _engine.shuffle(self._network, key, order)
        return order

    def _resume(self, path, training):
        """Take over what a checkpoint holds; returns the training that goes on from there."""
        path = checks.path("resume_from", path)
        metadata, tensors = read_file(path)
        net, resumed = MLP._read(path, metadata, tensors), _read_training(path, metadata, tensors)
        if resumed is None:
            raise ValueError(f"resume_from: {path} is a network, but not a Checkpoint's file")
        if net._config() | {"seed": None} != self._config() | {"seed": None}:
            raise ValueError(f"resume_from: {path} holds another network: {net}")
        known = (net._state.given, net._state.optimizer)
        if training.optimizer is not None and training.optimizer not in known:
            raise ValueError(f"optimizer: {training.optimizer} is not the checkpoint's {known[0]}")
        settings = resumed["position"]["settings"]
        for name in training.settings | settings:
            value, there = training.settings.get(name), settings.get(name)
            if value != there:
                raise ValueError(f"{name}: {value} is not the checkpoint's {there}")
        kept = [callback for callback in training.callbacks if callback.get_state() is not None]
        names = [type(callback).__name__ for callback in kept]
        found = [name for name, _ in resumed["callbacks"] if name != "History"]
        if names != found:
            raise ValueError(f"callbacks: {names} are not the checkpoint's {found}")
        if training.epochs.start:
            raise ValueError("initial_epoch: the checkpoint knows the epoch")
        self._network.parameters[...] = net._network.parameters
        for name in ("seed", "iterations", "epochs"):
            setattr(self._network, name, getattr(net._network, name))
        self._state = net._state
        return training._replace(resumed=resumed, optimizer=self._state.optimizer)

    def _resolved_optimizer(self, optimizer, name="optimizer"):
        if optimizer is not None:
            optimizer = optimizers.get(optimizer, name)
        else:
            optimizer = optimizers.Adam() if self._state is None else self._state.optimizer
        _custom.kernels_for(self._network, optimizer)  # what users wrote has to compile
        return optimizer

    def _metrics(self, totals):
        """By name, from the totals (3,) of an epoch, or lists of them from (epochs, 3)."""
        loss, correct, rows = totals.T
        accuracy = {"accuracy": (correct / rows).tolist()} if self._loss.classification else {}
        return accuracy | {"loss": (loss / rows).tolist()}

    # ------------------------------------------------------------------------------------- scores

    def evaluate(self, X, y=None, *, batch_size=_engine.ROWS, sample_weight=None, verbose=0):
        """Loss, penalties included, and accuracy on rows X with targets y, without dropout.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        batch_size : int, default 512
            Rows that go through the network at once. The result depends on it by rounding only.
        verbose : {0, 1}, default 0
            1 prints the result too.

        Returns
        -------
        dict of str to float
            "loss", and for classification "accuracy".

        Raises
        ------
        ValueError, TypeError
            As `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdl import MLP
        >>> net = MLP([2, 2])
        >>> net.set_weights([np.eye(2), np.zeros(2)])
        >>> scores = net.evaluate([[1, 0], [0, 1]], [0, 1])
        >>> print(f"{scores['loss']:.4f} {scores['accuracy']}")
        0.3133 1.0
        """
        batch_size = checks.integer("batch_size", batch_size, low=1)
        verbose = checks.integer("verbose", verbose, low=0, high=1)
        data = self._rows(X, y, sample_weight)
        start = time.perf_counter()
        totals = self._scores(data, batch_size=batch_size)
        scores = self._metrics(totals)
        if verbose:
            steps = math.ceil(totals[2] / batch_size)
            print(ProgressBar.line(steps, steps, time.perf_counter() - start, scores, bar=False))
        return scores

    def predict(self, X, *, out=None):
        """The network's outputs for rows X: probabilities for classification.

        Parameters
        ----------
        X : array_like or scipy.sparse matrix (n, features)
            As for `fit`; n may be 0.
        out : ndarray (n, units), optional
            Of the network's dtype; receives the result.

        Returns
        -------
        ndarray (n, units)
            `out` if given.

        Raises
        ------
        ValueError, TypeError
            If X does not fit the network, or `out` has another shape or dtype, can't be written or
            overlaps X.

        Notes
        -----
        Quickest for a row, or a few, is a C-contiguous X of the network's dtype; with `out` too,
        nothing is allocated. A row's outputs are the same whichever rows stand beside it, as long
        as all parameters are finite.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdl import MLP
        >>> MLP([4, 8, 3], seed=0).predict(np.zeros((2, 4))).round(3)
        array([[0.333, 0.333, 0.333],
               [0.333, 0.333, 0.333]], dtype=float32)
        """
        outputs = self._network.predict_few(X, out)
        return self._predict(X, self._network.output_code, out) if outputs is None else outputs

    def predict_proba(self, X):
        """The probability of each class for rows X, as scikit-learn's classifiers give it.

        Parameters
        ----------
        X : array_like or scipy.sparse matrix (n, features)

        Returns
        -------
        ndarray (n, classes)
            One column for each class, two for a network of one unit. For several units under
            binary cross-entropy, the probability that each is on. Outputs that are logits are
            turned into probabilities.

        Raises
        ------
        ValueError
            If X does not fit the network, or its loss is one of regression.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdl import MLP
        >>> MLP([4, 1], seed=0).predict_proba(np.zeros((1, 4)))
        array([[0.5, 0.5]], dtype=float32)
        """
        if not self._loss.classification:
            raise ValueError(
                f"predict_proba: a network with loss {self._loss} has no probabilities"
            )
        link = self._loss.output_activation if self._network.from_logits else "linear"
        outputs = self._predict(X, activations.get(link).code, None)
        return outputs if self.sizes[-1] > 1 else np.hstack([1 - outputs, outputs])

    def _predict(self, X, output_code, out):
        inputs = self._inputs("X", X)
        shape = (len(inputs), self.sizes[-1])
        # Sparse rows are copies.
        others = {} if _sparse.is_sparse(X) else {"X": inputs}
        out = checks.output("out", out, shape=shape, dtype=self.dtype, inputs=others)
        _engine.predict(self._network, inputs, output_code, out)
        return out

    def gradients(self, X, y, sample_weight=None):
        """Loss of rows X with targets y as one batch, without dropout, and its gradient.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        loss : float
            Penalties included.
        gradients : list of ndarray
            In the order and shapes of `weights`.

        Raises
        ------
        ValueError, TypeError
            As `fit`.

        Examples
        --------
        >>> from fastdl import MLP
        >>> net = MLP([2, 1], loss="mse")
        >>> net.set_weights([[[1.0], [2.0]], [0.0]])
        >>> loss, (weights, bias) = net.gradients([[1.0, 1.0]], [1.0])
        >>> loss, weights.ravel().tolist(), bias.tolist()
        (4.0, [4.0, 4.0], [4.0])
        """
        return _engine.gradients(self._network, self._data(X, y, sample_weight, dense=True))

    def _scores(self, data, workspace=None, batch_size=_engine.ROWS):
        """The totals of all rows, in memory or not."""
        if not isinstance(data, Stream):
            return _engine.evaluate(self._network, data, workspace, batch_size)
        pieces, totals, last = data.feed(self._network, [None], batch_size), 0.0, False
        try:
            while not last:
                piece = pieces.take()
                totals = totals + _engine.evaluate(self._network, piece.data, None, batch_size)
                last = piece.last
        finally:
            pieces.close()
        return totals

    # --------------------------------------------------------------------------------- parameters

    def get_weights(self):
        """Copies of W1 (I, O), b1 (O,), W2, b2, ...

        Examples
        --------
        >>> from fastdl import MLP
        >>> [array.shape for array in MLP([4, 8, 3]).get_weights()]
        [(4, 8), (8,), (8, 3), (3,)]
        """
        return [array.copy() for array in self._network.arrays]

    def set_weights(self, weights):
        """Replace all parameters.

        Parameters
        ----------
        weights : sequence of array_like
            In the order and shapes of `get_weights`.

        Raises
        ------
        ValueError, TypeError
            If their number, a shape or a dtype is wrong. Nothing is changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdl import MLP
        >>> net = MLP([2, 1])
        >>> net.set_weights([np.ones((2, 1)), np.zeros(1)])
        >>> net.weights[0].ravel().tolist()
        [1.0, 1.0]
        """
        weights = checks.sequence("weights", weights, "arrays")
        if len(weights) != len(self._network.arrays):
            raise ValueError(
                f"weights: {len(weights)} arrays are not the network's {len(self._network.arrays)}"
            )
        converted = []
        for index, (new, old) in enumerate(zip(weights, self._network.arrays, strict=True)):
            array = checks.as_array(f"weights[{index}]", new, dtype=self.dtype)
            if np.may_share_memory(array, self._network.parameters):
                array = array.copy()  # before another one is written over it
            if array.shape != old.shape:
                raise ValueError(f"weights[{index}]: shape {array.shape} is not {old.shape}")
            converted.append(array)
        for new, old in zip(converted, self._network.arrays, strict=True):
            old[...] = new

    def copy(self):
        """An independent network in the same state of training.

        Examples
        --------
        >>> from fastdl import MLP
        >>> net = MLP([2, 1])
        >>> twin = net.copy()
        >>> twin.weights[0][...] = 0
        >>> bool(net.weights[0].any())
        True
        """
        return copy.deepcopy(self)

    def summary(self, print_fn=print):
        """Print a table of the layers and their parameters.

        Parameters
        ----------
        print_fn : callable, default print
            Receives the table as one string.

        Examples
        --------
        >>> from fastdl import MLP
        >>> MLP([784, 128, 10], dropout=0.5).summary()
        Layer (type)                  Output shape           Param #
        ============================================================
        dense_1 (Dense, relu)         (None, 128)            100,480
        dropout_1 (Dropout, 0.5)      (None, 128)                  0
        dense_2 (Dense, softmax)      (None, 10)               1,290
        ============================================================
        Total params: 101,770 (397.54 KB)
        """
        rows = []
        for number, (weights, bias) in enumerate(self._network.layers, 1):
            shape = f"(None, {len(bias)})"
            name = self._activations[number - 1].name
            rows.append((f"dense_{number} (Dense, {name})", shape, weights.size + bias.size))
            if number <= len(self._dropout) and self._dropout[number - 1]:
                rate = self._dropout[number - 1]
                rows.append((f"dropout_{number} (Dropout, {rate:g})", shape, 0))
        width = max(28, *(len(row[0]) for row in rows))
        rule = "=" * (width + 32)
        parameters = self._network.parameters
        note = _custom.training_note(self._network, self.optimizer)
        print_fn(
            "\n".join(
                [
                    f"{'Layer (type)':{width}}  {'Output shape':20}{'Param #':>10}",
                    rule,
                    *(f"{name:{width}}  {shape:20}{count:10,}" for name, shape, count in rows),
                    rule,
                    f"Total params: {parameters.size:,} ({_readable_size(parameters.nbytes)})",
                    *([note] if note else []),
                ]
            )
        )

    def __repr__(self):
        return f"MLP({list(self.sizes)}, loss={self._loss}, dtype='{self.dtype}', seed={self.seed})"

    # -------------------------------------------------------------------------------------- files

    def save(self, path, *, include_optimizer=True):
        """Write the network to a file: parameters, settings and the state of training.

        The file is in the safetensors format, its settings JSON in the header; nothing in it is
        code. It is written beside `path` first and then renamed, so that `path` always holds a
        whole file, old or new.

        Parameters
        ----------
        path : path-like
        include_optimizer : bool, default True
            Whether training can go on exactly after `load`: writes the optimizer and its moments.

        Raises
        ------
        TypeError
            If the optimizer's learning rate is a function that is not of `fastdl.schedules`, an
            activation, the loss or the optimizer is written in Python, or a class derived from
            fastdl's has the name of one of them.
        ImportError
            If the package safetensors is missing.
        OSError
            If the file can't be written; `path` is as before then.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import fastdl
        >>> net = fastdl.MLP([4, 8, 3])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save(os.path.join(folder, "net.safetensors"))
        ...     again = fastdl.load(os.path.join(folder, "net.safetensors"))
        >>> X = np.eye(4)
        >>> bool((net.predict(X) == again.predict(X)).all())
        True
        """
        path = checks.path("path", path)
        checks.boolean("include_optimizer", include_optimizer)
        self._write(path, include_optimizer)

    def _save_training(self, path, training):
        """`save`, and where a training stands: what `_resume` takes."""
        tensors, callbacks = {}, []
        for index, (name, state) in enumerate(training["callbacks"]):
            state = dict(state)
            for key in [key for key, value in state.items() if _are_arrays(value)]:
                prefix = f"{_TRAINING}.{index}.{key}."
                tensors |= {f"{prefix}{i}": array for i, array in enumerate(state[key])}
                state[key] = {"arrays": prefix, "count": len(state[key])}
            callbacks.append([name, state])
        # Its numbers may be NaN, and those that a callback noted NumPy's.
        text = json.dumps(training | {"callbacks": callbacks}, default=_python_number)
        self._write(path, metadata={_TRAINING: text}, tensors=tensors)

    def _write(self, path, include_optimizer=True, metadata=None, tensors=None):
        """What `save` does; others may have more in the file, under names of `_OTHERS`."""
        safetensors = optional_import("safetensors.numpy", extra="save")
        written = _custom.pieces(self._network, self.optimizer if include_optimizer else None)
        if written:
            raise TypeError(f"{written[0]}: written in Python, so it can't be saved")
        header = {
            "format": _FORMAT,
            "network": self._config(),
            "iterations": self._network.iterations,
            "epochs": self._network.epochs,
            "optimizer": None,
        }
        tensors = dict(tensors or {})
        tensors |= zip(self._array_names(), self._network.arrays, strict=True)
        if include_optimizer and self._state is not None:
            header["optimizer"] = {
                "given": self._state.given,
                "current": self._state.optimizer,
                "iterations": self._state.iterations,
            }
            for slot, flat in self._state.slots.items():
                for name, array in zip(self._array_names(), self._network.views(flat), strict=True):
                    tensors[f"{slot}.{name}"] = array
        header = to_config(header)
        try:
            text = json.dumps(header, allow_nan=False)
        except TypeError as error:
            raise TypeError(
                "learning_rate: a function that is not of fastdl.schedules can't be saved; "
                "include_optimizer=False saves the network alone"
            ) from error
        _replace_file(path, safetensors.save(tensors, metadata={_HEADER: text, **(metadata or {})}))

    @classmethod
    def load(cls, path):
        """Read a network that `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        MLP

        Raises
        ------
        ValueError
            If the file is damaged or is not one of fastdl's.
        ImportError
            If the package safetensors is missing.
        OSError
            If the file can't be read.

        Examples
        --------
        >>> import fastdl
        >>> fastdl.load("nothing.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nothing.safetensors'
        """
        path = checks.path("path", path)
        return cls._read(path, *read_file(path))

    @classmethod
    def _read(cls, path, metadata, tensors):
        """The network in a file of this content."""
        header = _parsed(path, metadata[_HEADER])
        tensors = {name: each for name, each in tensors.items() if not name.startswith(_OTHERS)}
        try:
            if header["format"] != _FORMAT:
                raise ValueError(f"format {header['format']} is not {_FORMAT}, the one known here")
            header = from_config(header)
            net = cls(**header["network"])
            network = net._network
            network.iterations = checks.integer("iterations", header["iterations"], low=0)
            network.epochs = checks.integer("epochs", header["epochs"], low=0)
            slots = {}
            if header["optimizer"] is not None:
                saved = header["optimizer"]
                net._state = _engine.OptimizerState(optimizers.get(saved["given"]), network)
                net._state.optimizer = optimizers.get(saved["current"])
                net._state.iterations = checks.integer("iterations", saved["iterations"], low=0)
                slots = net._state.slots
            expected = {}
            for prefix, flat in {"": network.parameters, **slots}.items():
                for name, array in zip(net._array_names(), network.views(flat), strict=True):
                    expected[f"{prefix}.{name}" if prefix else name] = array
            _fill(expected, tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a network saved by fastdl: {error!r}") from error
        return net

    def _config(self):
        """The arguments that make a network like this one."""
        return {
            "sizes": self.sizes,
            "activation": self._activations[:-1],
            "output_activation": self._activations[-1],
            "dropout": self._dropout,
            "loss": self._loss,
            "l1": self.l1,
            "l2": self.l2,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "kernel_initializer": self._kernel_initializer,
        }

    def _array_names(self):
        layers = range(1, len(self.sizes))
        return [f"dense_{layer}.{kind}" for layer in layers for kind in ("weights", "bias")]

    # ------------------------------------------------------------------------- checks of arguments

    def _inputs(self, name, X):
        """X as rows (n, features) of the network's dtype, sparse ones as SparseRows."""
        if _sparse.is_sparse(X):
            rows = _sparse.as_rows(name, X, self.sizes[0], self.dtype)
            # Dense they are faster, and take about as much memory.
            return rows.toarray() if rows.density > _engine.SPARSE_DENSITY else rows
        inputs = checks.as_array(name, X, dtype=self.dtype)
        if inputs.ndim < 2 or math.prod(inputs.shape[1:]) != self.sizes[0]:
            raise ValueError(
                f"{name}: shape {inputs.shape} is not rows of {self.sizes[0]} features, as the "
                "first layer takes"
            )
        return inputs.reshape(len(inputs), self.sizes[0])

    def _finite(self, name, inputs, training=False, dense=False):
        """Rows, if all are finite, as prediction or training takes them fastest, or `dense`."""
        if isinstance(inputs, _sparse.SparseRows):
            return _sparse.finite(name, inputs)
        rows, known = inputs, None
        if not dense:
            rows, known = _engine.without_zeros(self._network, inputs, training)
        if not known:
            checks.finite(name, inputs)
        return rows

    def _data(self, X, y, sample_weight, names=_NAMES, *, training=False, dense=False):
        """Rows, targets and weights as the engine takes them; `dense` leaves dense rows dense."""
        inputs = checks.nonempty(names[0], self._inputs(names[0], X))
        inputs = self._finite(names[0], inputs, training, dense)
        rows = len(inputs)
        targets, labels = self._loss.targets(names[1], y, rows, self.sizes[-1], self.dtype)
        if sample_weight is not None:
            sample_weight = checks.as_array(names[2], sample_weight, ndim=1, dtype=self.dtype)
            checks.matches(names[2], sample_weight, (rows,), names[0], inputs.shape)
            checks.finite(names[2], sample_weight, low=0)
        return _engine.Data(inputs, targets, labels, sample_weight)

    def _rows(self, X, y, sample_weight, class_weight=None, names=_NAMES, epochs=1, training=False):
        """Rows in memory as `_engine.Data`, and others as a Stream for so many epochs."""
        blocks = _as_blocks(X, y, sample_weight)
        if blocks is not None:
            blocks.check(self.sizes[0], epochs)
            if blocks.small():
                X, y, sample_weight = blocks.load(self.dtype)
                blocks = None
        if blocks is None:
            return self._weighted(X, y, sample_weight, class_weight, names, training)
        if class_weight is not None:
            self._class_weights(class_weight, np.zeros(1))

        def prepare(X, y, sample_weight, names):
            data = self._weighted(X, y, sample_weight, class_weight, names, training)
            _engine.cut(self._network, data)
            return data

        return Stream(blocks, prepare)

    def _weighted(self, X, y, sample_weight, class_weight, names, training):
        """The same for rows in memory."""
        data = self._data(X, y, sample_weight, names, training=training)
        if class_weight is None:
            return data
        if sample_weight is not None:
            raise ValueError("class_weight: can't be given together with sample_weight")
        return data._replace(sample_weight=self._class_weights(class_weight, data.labels))

    def _training_data(
        self, X, y, sample_weight, class_weight, validation_data, validation_split, epochs=1
    ):
        """Rows to train on and rows to evaluate, or None, from the arguments of `fit`."""
        split = checks.number("validation_split", validation_split, low=0, high=1, high_open=True)
        # Rows that are both trained on and evaluated stay as evaluation takes them.
        training = validation_data is not None or not split
        data = self._rows(X, y, sample_weight, class_weight, epochs=epochs, training=training)
        if validation_data is not None:
            return data, self._validation_data(validation_data, epochs)
        if not split:
            return data, None
        if isinstance(data, Stream):
            raise ValueError("validation_split: rows that are streamed need validation_data")
        rows = math.floor(len(data.inputs) * (1 - split))
        if rows in (0, len(data.inputs)):
            raise ValueError(
                f"validation_split: {split} leaves one part of {len(data.inputs)} rows empty"
            )
        held = data.part(rows, None)
        if class_weight is not None:  # which is for training alone
            held = held._replace(sample_weight=None)
        return data.part(0, rows), held

    def _validation_data(self, validation_data, epochs):
        if isinstance(validation_data, Blocks):
            return self._rows(validation_data, None, None, epochs=epochs)
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise TypeError("validation_data: not a tuple (X, y) or (X, y, sample_weight)")
        names = [f"validation_data[{index}]" for index in range(3)]
        X, y, sample_weight = (*validation_data, None)[:3]
        return self._rows(X, y, sample_weight, names=names, epochs=epochs)

    def _class_weights(self, class_weight, labels):
        """The weight of each row by its class."""
        if not self._loss.classification or labels.size != len(labels):
            raise ValueError("class_weight: the loss of this network knows no classes")
        if not isinstance(class_weight, dict):
            raise TypeError(f"class_weight: {class_weight!r} is not a dict from class to weight")
        weights = np.ones(max(self.sizes[-1], 2), self.dtype)
        for label, weight in class_weight.items():
            label = checks.integer("class_weight", label, low=0, high=len(weights) - 1)
            weights[label] = checks.number(f"class_weight[{label}]", weight, low=0)
        return weights[np.round(labels).astype(np.int64).reshape(-1)]


load = MLP.load


def _python_number(value):
    """What JSON takes instead of a number of NumPy's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"logs: {value!r} is not a number")


class _Whole:
    """Gives all rows as one piece, for any number of epochs."""

    def __init__(self, piece):
        self._piece = piece

    def take(self):
        return self._piece


def _as_blocks(X, y, sample_weight):
    """Blocks of rows that are not in memory, None for others."""
    if isinstance(X, Blocks):
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise TypeError(f"{name}: the Blocks hold it")
        return X
    if y is None or are_paths(X) or (isinstance(X, np.memmap) and not _is_of_joblib(X)):
        return Blocks(X, y, sample_weight)
    return None


def _is_of_joblib(array):
    """Whether a numpy.memmap is joblib's copy of an array of the process that started this one.

    Such rows are in memory there, and train here in the same order as there.
    """
    return "joblib_memmapping_folder" in str(array.filename)


def _per_layer(name, value, hidden, check):
    """One checked value for each hidden layer."""
    if not isinstance(value, (list, tuple, np.ndarray)) or getattr(value, "ndim", 1) == 0:
        return (check(value),) * hidden
    if len(value) != hidden:
        raise ValueError(f"{name}: {len(value)} values for {hidden} hidden layers")
    return tuple(check(each) for each in value)


def _dtype(value):
    try:
        name = np.dtype(value).name
    except TypeError:
        name = value
    return np.dtype(checks.choice("dtype", name, ("float32", "float64")))


def hooks_for(model, callbacks, epochs, steps, verbose):
    """All that is called while a network is in training, and the History among it."""
    history, bar = History(), [ProgressBar()] if verbose else []
    # Checkpoints come last, and keep what all others have noted.
    late = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    others = [callback for callback in callbacks if callback not in late]
    params = {"epochs": epochs, "steps": steps, "verbose": verbose}
    return CallbackList([*others, *bar, history, *late], model, params), history


def checked_callbacks(name, callbacks):
    """The argument called `name` as a list of callbacks."""
    callbacks = checks.sequence(name, callbacks or (), "callbacks")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"{name}: {callback!r} is not a fastdl.Callback")
    return callbacks


def _readable_size(size):
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{size:.2f} {unit}"
        size /= 1024


# ------------------------------------------------------------------------------------------ files


def _replace_file(path, content):
    """Write a file beside `path`, then put it in its place."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def read_file(path):
    """The metadata and the tensors of a file that holds a saved network."""
    safetensors = optional_import("safetensors", extra="save")
    with open(path, "rb"):
        pass  # The usual errors, for a file that isn't there or can't be read.
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    if _HEADER not in metadata:
        raise ValueError(f"{path}: a safetensors file, but not one saved by fastdl")
    return metadata, tensors


def _read_training(path, metadata, tensors):
    """Where the training in a file of this content stands; None without one."""
    training = _parsed(path, metadata.get(_TRAINING, "null"))
    for _, state in training["callbacks"] if training else ():
        for key, value in state.items():
            if isinstance(value, dict) and "arrays" in value:
                state[key] = [tensors[f"{value['arrays']}{i}"] for i in range(value["count"])]
    return training


def _parsed(path, text):
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: its fastdl header is not JSON: {error}") from error


def _are_arrays(value):
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, np.ndarray) for each in value)
    )


def _fill(arrays, tensors):
    """Copy tensors into arrays of the same names."""
    if arrays.keys() != tensors.keys():
        odd = sorted(arrays.keys() ^ tensors.keys())
        raise ValueError(f"tensors missing or unknown: {', '.join(odd)}")
    for name, array in arrays.items():
        tensor = tensors[name]
        if tensor.shape != array.shape or tensor.dtype != array.dtype:
            raise ValueError(
                f"{name}: {tensor.dtype} {tensor.shape} is not {array.dtype} {array.shape}"
            )
        array[...] = tensor
