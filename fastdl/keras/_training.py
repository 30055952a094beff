"""`fit`, `evaluate` and `predict` of a Keras model on fastdl's kernels.

Keras's own parts do all that is not arithmetic: its data adapters slice generators and datasets
into batches, its `CallbackList` calls the callbacks, its metrics count what the engine does not.
The weights and the optimizer's state live in a `Plan`'s network while a fit runs, and are copied to
the model before a callback that may look at them, and at the end, however it ends.
"""

import functools
import inspect
import math
import time
import warnings
from typing import NamedTuple

import numpy as np

from .. import _engine, _sparse, checks
from .._optional import optional_import
from ._bare import import_keras
from ._models import MEAN, UnsupportedModelError
from ._plan import REPLACED, Link, Plan, check_optimizer, counts, own_method, weighted

_REBOUND = (*REPLACED, "summary")

_BATCH_SIZE = 32

# Seconds between two looks for Ctrl-C, and between two updates of the progress bar.
_LISTENING_INTERVAL = 0.05
_PROGRESS_INTERVAL = 0.2

# Rows that a layer before the first Dense is called with at once.
_ROWS = 8192

# What Keras's callbacks need of the model: nothing, its weights, its learning rate. Others may look
# at everything and change it.
_NEEDS = {
    "CSVLogger": "",
    "EarlyStopping": "weights",
    "History": "",
    "ProgbarLogger": "",
    "ReduceLROnPlateau": "rate",
    "RemoteMonitor": "",
    "TerminateOnNaN": "",
}


def accelerate(model, *, fallback=False, seed=None):
    """Have a compiled Keras model train, evaluate and predict on fastdl's kernels.

    Its `fit`, `evaluate`, `predict`, `train_on_batch`, `test_on_batch` and `predict_on_batch` are
    replaced by ones of the same arguments and results, under each backend of Keras, that of NumPy
    included. Weights, optimizer state and metrics stay Keras's, so that callbacks, saving, and
    Keras's own methods after `restore`, find them where they were.

    Parameters
    ----------
    model : keras.Model
        Compiled; a Sequential or Functional chain of Flatten, Rescaling, Normalization and a
        Dropout, then Dense layers, each followed by at most one activation (Activation, ReLU,
        LeakyReLU, ELU, Softmax or the layer's own) and, except for the last one, then by at most
        one Dropout.
    fallback : bool, default False
        Whether a model that is not supported is left to Keras, with one warning, instead of an
        error.
    seed : int, optional
        Of dropout and shuffling. Without it Python's generator, which
        `keras.utils.set_random_seed` sets, draws one.

    Returns
    -------
    keras.Model
        The same one.

    Raises
    ------
    UnsupportedModelError
        If the model holds anything else: the message names it. Nothing is changed then.
    TypeError
        If `model` is no Keras model.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from fastdl.keras import accelerate
    >>> model = keras.Sequential([
    ...     keras.layers.Input((2,)), keras.layers.Dense(8, activation="tanh"),
    ...     keras.layers.Dense(1, activation="sigmoid")])
    >>> model.compile("adam", loss="binary_crossentropy", metrics=["accuracy"])
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> history = accelerate(model).fit(X, X[:, 0] > 0, epochs=3, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss']
    """
    accelerated = _accelerated(model, seed, fallback, replaces=True)
    if accelerated is None:
        return model
    for name in _REBOUND:
        object.__setattr__(model, name, getattr(accelerated, name))
    return model


def restore(model):
    """Undo `accelerate`: the model's methods are Keras's again.

    Parameters
    ----------
    model : keras.Model
        Accelerated or not.

    Returns
    -------
    keras.Model
        The same one.

    Examples
    --------
    >>> import keras
    >>> from fastdl.keras import accelerate, restore
    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss="mse")
    >>> restore(accelerate(model)).fit.__func__ is keras.Sequential.fit
    True
    """
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise TypeError(f"model: {model!r} is not a Keras model")
    for name in _REBOUND:
        if _is_ours(getattr(model, name)):
            object.__delattr__(model, name)
    return model


def fit(model, *arguments, fallback=False, seed=None, **settings):
    """Train a compiled Keras model once on fastdl's kernels.

    Parameters
    ----------
    model : keras.Model
        As for `accelerate`.
    *arguments, **settings
        Those of `keras.Model.fit`.
    fallback, seed
        As for `accelerate`.

    Returns
    -------
    keras.callbacks.History

    Raises
    ------
    UnsupportedModelError, TypeError
        As `accelerate`.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import fastdl.keras
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss="mse")
    >>> history = fastdl.keras.fit(model, np.ones((8, 1)), np.ones(8), epochs=2, verbose=0)
    >>> history.epoch
    [0, 1]
    """
    if _is_ours(getattr(model, "fit", None)):
        return model.fit(*arguments, **settings)
    accelerated = _accelerated(model, seed, fallback)
    return (model if accelerated is None else accelerated).fit(*arguments, **settings)


def _is_ours(method):
    return isinstance(getattr(method, "__self__", None), Accelerated)


def _accelerated(model, seed, fallback, replaces=False):
    """What trains the model for its caller's caller, or None where that is left to Keras."""
    checks.boolean("fallback", fallback)
    seed = None if seed is None else checks.seed("seed", seed)
    try:
        accelerated = Accelerated(model, seed, fallback)
        for name in _REBOUND if replaces else ():
            if name in vars(model) and not _is_ours(vars(model)[name]):
                raise own_method(model, name)
        return accelerated
    except UnsupportedModelError as error:
        if not fallback:
            raise
        _warn(error)
        return None


def _warn(error):
    """Say so to the caller of whoever's caller calls this."""
    warnings.warn(f"{error}; left to Keras", stacklevel=4)


def _supported(method):
    """A method that is Keras's own while the model is not supported, for which see `_ready`."""
    name = method.__name__

    @functools.wraps(method)
    def run(self, *arguments, **settings):
        if self._ready(name):
            return method(self, *arguments, **settings)
        outer, self._left_to_keras = self._left_to_keras, True
        try:
            return getattr(type(self._model), name)(self._model, *arguments, **settings)
        finally:
            self._left_to_keras = outer

    return run


def _keras_module(name):
    """A module of Keras that it has no public name for."""
    return optional_import(f"keras.src.{name}", extra="keras")


class Rows(NamedTuple):
    """Arrays to train on or to score."""

    data: _engine.Data
    targets: np.ndarray  # as they were given, for Keras's metrics


class Accelerated:
    """The methods of a model, under Keras's names and with its arguments."""

    def __init__(self, model, seed, fallback):
        self._keras = import_keras()
        self._model, self._fallback = model, fallback
        self._plan = Plan(model, seed)
        self._link = Link(model, self._plan)
        self._workspace = _engine.Workspace(self._plan.network)
        self._known_metrics = {}
        self._fitting = self._left_to_keras = False
        # Older versions of Keras know no limits for debugging.
        config = self._keras.config
        self._most_epochs = getattr(config, "max_epochs", lambda: None)
        self._most_steps = getattr(config, "max_steps_per_epoch", lambda: None)

    def _ready(self, method):
        """Whether the model, as it is now, is one that this method can be called for here."""
        if self._fitting:  # which goes on with what it began with
            return True
        plan, trains = self._plan, method in ("fit", "train_on_batch")
        check = plan.predicts if method in ("predict", "predict_on_batch") else plan.holds
        known = check(self._model) and (any(plan.trained) or not trains)
        try:
            if not known:
                plan = Plan(self._model, plan.network.seed, trains)
            if trains:
                check_optimizer(self._model)
        except UnsupportedModelError as error:
            if not self._fallback:
                raise
            if not self._left_to_keras:  # as `fit`, which calls `evaluate`
                _warn(error)
            return False
        if known:
            return True
        # Dropout and shuffling go on.
        plan.network.iterations = self._plan.network.iterations
        plan.network.epochs = self._plan.network.epochs
        self._plan, self._link = plan, Link(self._model, plan)
        self._workspace = _engine.Workspace(plan.network)
        self._known_metrics = {}
        return True

    # ------------------------------------------------------------------------------- training

    @_supported
    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """`keras.Model.fit`, by fastdl's kernels."""
        model, link = self._model, self._link
        most = self._most_epochs()
        if most and most < epochs:
            warnings.warn(f"Limiting epochs to {most}", stacklevel=3)
            epochs = most
        if validation_split and validation_data is None:
            slicing = _keras_module("trainers.data_adapters.array_slicing")
            (x, y, sample_weight), validation_data = slicing.train_validation_split(
                (x, y, sample_weight), validation_split=validation_split
            )
        source = self._source(
            x, y, sample_weight, class_weight, batch_size, steps_per_epoch, shuffle, training=True
        )
        validation = None
        if validation_data is not None:
            validation = self._source(
                *self._keras.utils.unpack_x_y_sample_weight(validation_data),
                None,
                validation_batch_size or batch_size,
                validation_steps,
                False,
            )
        link.build(model)
        callbacks = self._callback_list(
            callbacks, verbose, source.steps, epochs=epochs, add_history=True
        )
        hooks = Hooks(self._keras, callbacks, link)
        model.stop_training = False
        link.read()
        outer, self._fitting = self._fitting, True
        try:
            hooks("on_train_begin")
            logs = None
            for epoch in range(getattr(model, "_initial_epoch", None) or initial_epoch, epochs):
                link.results = model.reset_metrics
                hooks("on_epoch_begin", epoch)
                logs = source.train(hooks)
                if validation is not None and model._should_eval(epoch, validation_freq):
                    scores = validation.score(hooks)
                    logs |= {f"val_{name}": value for name, value in scores.items()}
                hooks("on_epoch_end", epoch, logs)
                if model.stop_training:
                    break
        finally:
            self._fitting = outer
            link.write()
        if epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs)
        return model.history

    @_supported
    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """`keras.Model.train_on_batch`, by fastdl's kernels."""
        source = Arrays(self, x, y, sample_weight, class_weight, None, False, training=True)
        self._link.build(self._model)
        self._link.read()
        try:
            logs = source.train(Silent())
        finally:
            self._link.write()
        return self._results(logs, return_dict)

    # --------------------------------------------------------------------------------- scores

    @_supported
    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """`keras.Model.evaluate`, by fastdl's kernels."""
        kwargs.pop("_use_cached_eval_dataset", None)  # from Keras's own `fit`
        if kwargs:
            raise ValueError(f"Arguments not recognized: {kwargs}")
        source = self._source(x, y, sample_weight, None, batch_size, steps, False)
        callbacks = self._callback_list(callbacks, verbose, source.steps)
        logs = self._scores(source, Hooks(self._keras, callbacks, self._link))
        return self._results(logs, return_dict)

    @_supported
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """`keras.Model.test_on_batch`, by fastdl's kernels."""
        source = Arrays(self, x, y, sample_weight, None, None, False)
        return self._results(self._scores(source, Silent()), return_dict)

    def _scores(self, source, hooks):
        """The logs of an evaluation; the model's metrics hold the same, or what there was of it."""
        self._link.read_weights()
        try:
            return source.score(hooks)
        finally:
            self._link.write_results()

    def _callback_list(self, callbacks, verbose, steps, epochs=1, add_history=False):
        """Keras's list of these callbacks, itself left alone if it is one."""
        if isinstance(callbacks, self._keras.callbacks.CallbackList):
            return callbacks
        return self._keras.callbacks.CallbackList(
            callbacks,
            add_history=add_history,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
            model=self._model,
        )

    def _results(self, logs, return_dict):
        return logs if return_dict else self._model._flatten_metrics_in_order(logs)

    # ----------------------------------------------------------------------------- prediction

    @_supported
    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """`keras.Model.predict`, by fastdl's kernels."""
        plain = steps is None and not callbacks and verbose == 0 and not self._most_steps()
        if plain and self._are_arrays(x):
            return self._predict_rows(x)
        batches = self._batches(x, None, None, None, batch_size, steps, False)
        callbacks = self._callback_list(callbacks, verbose, batches.num_batches)
        follow = Hooks(self._keras, callbacks, self._link).follow("predict")
        self._model.stop_predicting = False
        callbacks.on_predict_begin()
        self._link.read_weights()
        outputs = []
        for begin, end, batch in numbered(batches):
            callbacks.on_predict_batch_begin(begin)
            if follow:
                self._link.read_weights()
            for part in batch:
                x, *_ = self._keras.utils.unpack_x_y_sample_weight(part)
                outputs.append(self._predict(self._inputs(x)))
            callbacks.on_predict_batch_end(end, {"outputs": outputs[-1]})
            if self._model.stop_predicting:
                break
        callbacks.on_predict_end()
        return np.concatenate(outputs)

    @_supported
    def predict_on_batch(self, x):
        """`keras.Model.predict_on_batch`, by fastdl's kernels."""
        return self._predict_rows(x)

    def _predict_rows(self, x):
        self._link.read_weights()
        return self._predict(self._inputs(x))

    def _predict(self, inputs):
        network = self._plan.network
        outputs = network.predict_few(inputs, None)
        if outputs is None:
            shape = len(inputs), network.sizes[-1]
            outputs = np.empty(shape, network.parameters.dtype)
            _engine.predict(network, inputs, network.output_code, outputs)
        return outputs

    @_supported
    def summary(self, *arguments, **settings):
        """`keras.Model.summary`, and how fastdl trains the model."""
        type(self._model).summary(self._model, *arguments, **settings)
        reasons = list(self._plan.reasons)
        if not all(metrics.counted for metrics in self._known_metrics.values()):
            reasons.append("metrics that Keras counts")
        print_fn = settings.get("print_fn") or print
        if reasons:
            print_fn(f"Trained by fastdl, kernel by kernel: {', '.join(reasons)}")
        else:
            print_fn("Trained by fastdl's engine")

    # ----------------------------------------------------------------------------------- data

    def _source(
        self, x, y, sample_weight, class_weight, batch_size, steps, shuffle, training=False
    ):
        """What `fit` or `evaluate` goes over."""
        whole = steps is None and not self._most_steps() and isinstance(shuffle, bool)
        if whole and self._are_arrays(x, y, sample_weight):
            batch_size = _BATCH_SIZE if batch_size is None else batch_size
            batch_size = checks.integer("batch_size", batch_size, low=1)
            return Arrays(self, x, y, sample_weight, class_weight, batch_size, shuffle, training)
        return Batches(
            self, self._batches(x, y, sample_weight, class_weight, batch_size, steps, shuffle)
        )

    def _batches(self, x, y, sample_weight, class_weight, batch_size, steps, shuffle):
        """Keras's iterator over the batches of anything it takes as data."""
        trainers = _keras_module("trainers.epoch_iterator")
        iterator = trainers.EpochIterator(
            x=x,
            y=y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps,
            shuffle=shuffle,
            class_weight=class_weight,
            steps_per_execution=self._model.steps_per_execution,
        )
        iterator.reset()
        return iterator

    def _are_arrays(self, *data):
        adapters = _keras_module("trainers.data_adapters.array_data_adapter")
        return adapters.can_convert_arrays(data)

    def _inputs(self, x):
        """Inputs as rows of the network's dtype, after the layers before the first Dense."""
        network, shape = self._plan.network, tuple(self._model.inputs[0].shape[1:])
        wide = self._plan.input_dtype in ("float32", "float64")
        x = self._named(x)
        if _sparse.is_sparse(x) and (self._plan.before or not wide):
            x = x.toarray()
        if _sparse.is_sparse(x):
            rows = _sparse.as_rows("x", x, network.sizes[0], network.parameters.dtype)
            return rows.toarray() if rows.density > _engine.SPARSE_DENSITY else rows
        inputs = self._array("x", x)
        if wide:
            inputs = inputs.astype(self._plan.input_dtype, copy=False)
        else:
            # As each backend does it.
            ops = self._keras.ops
            tensor = ops.convert_to_tensor(inputs, self._plan.input_dtype)
            inputs = ops.convert_to_numpy(tensor)
        if inputs.shape[1:] != shape:
            if shape == (*inputs.shape[1:], 1):
                inputs = inputs[..., np.newaxis]
            elif inputs.shape[1:] == (*shape, 1):
                inputs = inputs[..., 0]
            else:
                raise ValueError(
                    f"x: shape {inputs.shape} is not rows of shape {shape}, as the model takes"
                )
        dtype = network.parameters.dtype
        for layer in self._plan.before:
            if type(layer) is self._keras.layers.Flatten:
                inputs = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))
                continue
            parts = [
                self._keras.ops.convert_to_numpy(layer(inputs[start : start + _ROWS].astype(dtype)))
                for start in range(0, len(inputs), _ROWS)
            ]
            inputs = np.concatenate(parts) if parts else inputs
        return np.ascontiguousarray(inputs.reshape(len(inputs), network.sizes[0]), dtype)

    def _named(self, x):
        """Inputs out of a dict, which may hold others."""
        if not isinstance(x, dict):
            return x
        name = self._plan.input_name
        if name not in x:
            raise ValueError(f"x: {name!r}, the model's input, is not among the keys {list(x)}")
        return x[name]

    def _array(self, name, value):
        """An argument as one array, floating-point numbers rounded as Keras rounds them."""
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)) and len(value) == 1:
            (value,) = value
        if isinstance(value, (list, tuple)) and any(getattr(each, "ndim", 0) for each in value):
            raise ValueError(f"{name}: {len(value)} arrays, where the model has one")
        if value is None:
            raise ValueError(f"{name}: missing")
        if not isinstance(value, np.ndarray) and self._keras.ops.is_tensor(value):
            value = self._keras.ops.convert_to_numpy(value)
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise ValueError(f"{name}: {array.dtype} of shape {array.shape} is not rows of numbers")
        floatx = self._keras.config.floatx()
        return array.astype(floatx, copy=False) if array.dtype.kind == "f" else array

    def _rows(self, x, y, sample_weight, class_weight, training=False):
        """Arrays as the engine takes them."""
        inputs = self._inputs(x)
        given = self._array("y", y)
        rows, dtype = len(inputs), inputs.dtype
        if not rows or len(given) != rows:
            raise ValueError(f"y: {len(given)} rows do not go with the {rows} rows of x")
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError("class_weight: can't be given together with sample_weight")
            utils = _keras_module("trainers.data_adapters.data_adapter_utils")
            sample_weight = utils.class_weight_to_sample_weights(given, class_weight)
        if sample_weight is not None:
            sample_weight = self._array("sample_weight", sample_weight).astype(dtype)
            if sample_weight.size != rows or len(sample_weight) != rows:
                raise ValueError(
                    f"sample_weight: shape {sample_weight.shape} is not one weight for each of "
                    f"{rows} rows"
                )
            sample_weight = sample_weight.reshape(rows)
        targets, labels = self._targets(given, rows, dtype)
        # Rows that are not finite stay dense: skipping zeros would hide what they lead to.
        fewer, finite = _engine.without_zeros(self._plan.network, inputs, training)
        inputs = fewer if finite else inputs
        return Rows(_engine.Data(inputs, targets, labels, sample_weight), given)

    def _targets(self, y, rows, dtype):
        """Targets as the loss takes them, and labels to count right rows by."""
        network, units = self._plan.network, self._plan.network.sizes[-1]
        if self._plan.sparse:
            if y.size != rows:
                raise ValueError(f"y: shape {y.shape} is not {rows} labels")
            labels = y.reshape(rows).astype(np.int64)
            if (labels != y.reshape(rows)).any() or not 0 <= labels.min() <= labels.max() < units:
                raise ValueError(f"y: labels are not all integers in [0, {units})")
            return labels, labels
        if units == 1 and y.ndim == 1:
            y = y[:, np.newaxis]
        if y.shape != (rows, units):
            raise ValueError(f"y: shape {y.shape} is not {(rows, units)}, as the model's outputs")
        targets = np.ascontiguousarray(y, dtype)
        if network.loss.kernel(targets) == "categorical_crossentropy":
            return targets, targets.argmax(axis=1)
        return targets, targets if network.loss.classification else None

    def _metrics(self, targets, sample_weight):
        """The `Metrics` for targets of this shape."""
        weighted = sample_weight is not None
        key = targets.ndim, targets.shape[-1], weighted
        if key not in self._known_metrics:
            self._known_metrics[key] = Metrics(
                self._keras, self._model, self._plan, targets, weighted
            )
        return self._known_metrics[key]


class Metrics:
    """What Keras's logs hold beside the loss.

    Attributes
    ----------
    counted : bool
        Whether the engine counts all of it.
    together : bool
        Whether it is the same for rows that come at once as for batches of them.
    """

    def __init__(self, keras, model, plan, targets, weighted):
        self._compiled = compiled = model._compile_metrics
        self._loss = model._loss_tracker
        self._names, self.counted, self.together = [], True, True
        if compiled is None:
            return
        if not compiled.built:
            compiled.build(targets[:1], np.zeros((1, plan.network.sizes[-1]), np.float32))
        self.counted = not (weighted and compiled._user_weighted_metrics) and all(
            counts(keras, plan, each) for each in compiled.metrics
        )
        self.together = all(map(_adds_up, compiled.metrics))
        if self.counted:
            with np.errstate(all="ignore"):  # of nothing counted
                self._names = list(compiled.result())

    def publish(self, totals, recorder, link):
        """Have Keras's metrics hold the same as the logs."""
        if recorder:
            recorder.feed()
        loss, right, rows = totals.tolist()
        counted = self._compiled.metrics if self._names else ()
        for metric, total in ((self._loss, loss), *((each, right) for each in counted)):
            link.assign_number(metric.total, total)
            link.assign_number(metric.count, rows)

    def recorder(self):
        """What takes down predictions for Keras's metrics, or None."""
        return None if self.counted else Recorder(self._compiled, self.together)

    def logs(self, totals, recorder):
        """The means so far, in the order of their names as Keras gives them."""
        loss, right, rows = totals.tolist()
        rows = rows or 1
        logs = {name: right / rows for name in self._names}
        if recorder:
            recorder.feed()
            python = _keras_module("utils.python_utils")
            logs = python.pythonify_logs(self._compiled.result())
        logs["loss"] = loss / rows
        return dict(sorted(logs.items()))


def _adds_up(metric):
    """Whether a metric adds up over rows, whatever the batches, as Keras's own do.

    A function of a user may not, and an object of a loss gives one mean of each batch.
    """
    if not type(metric).__module__.startswith("keras."):
        return False
    function = getattr(metric, "_fn", None)
    return function is None or (
        inspect.isfunction(function)
        and function.__module__.startswith("keras.")
        and metric._fn_kwargs.get("axis", -1) == -1
    )


class Recorder:
    """Targets and predictions, on their way to Keras's metrics."""

    def __init__(self, metrics, together):
        self._metrics, self._together = metrics, together
        self._kept = []
        self.rows = None  # what the engine goes over: `Rows` and their order
        self._metrics.reset_state()

    def record(self, kernels, network, start, outputs):
        """Take down a batch's outputs in training."""
        predictions = np.empty_like(outputs)
        kernels.activation_forward(outputs, network.output_code, network.slopes[-1], predictions)
        rows, order = self.rows
        taken = slice(start, start + len(outputs))
        if order is not None:
            taken = order[taken].copy()
        weights = rows.data.sample_weight
        self.keep(rows.targets[taken], predictions, None if weights is None else weights[taken])

    def keep(self, targets, predictions, weights):
        """Take down predictions, of one batch or, for metrics that don't mind, of many."""
        self._kept.append((targets, predictions, weights))

    def feed(self):
        """Hand them on."""
        kept, self._kept = self._kept, []
        if self._together and kept:
            targets, predictions, weights = zip(*kept, strict=True)
            kept = [
                (
                    np.concatenate(targets),
                    np.concatenate(predictions),
                    None if weights[0] is None else np.concatenate(weights),
                )
            ]
        for each in kept:
            self._metrics.update_state(*each)


class Source:
    """Rows to train on or to score, epoch after epoch.

    Attributes
    ----------
    steps : int or None
        Of an epoch, where that is known.
    """

    def __init__(self, owner):
        self._owner, self._model = owner, owner._model
        self._network, self._link = owner._plan.network, owner._link

    def _take_steps(self, rows, order, batch_size, first, steps, totals):
        """Take training steps, `steps` at most; returns how many."""
        state = self._link.state
        self._link.touch()
        return _engine.train_steps(
            self._network,
            state,
            self._owner._workspace,
            rows.data,
            order,
            batch_size,
            first,
            state.rates(steps),
            totals,
            _LISTENING_INTERVAL,
        )

    def _recorder(self, metrics, totals):
        """Begin an epoch of training with these metrics."""
        recorder = metrics.recorder()
        self._network.extras = self._owner._plan.extras(recorder)
        self._publish(metrics, totals, recorder)
        return recorder

    def _publish(self, metrics, totals, recorder):
        """Have the model's metrics hold the means so far for those who look at them."""
        self._link.results = functools.partial(metrics.publish, totals, recorder, self._link)

    def _logs(self, metrics, totals, recorder):
        """The means so far, as logs and for those who look at the model's metrics."""
        self._publish(metrics, totals, recorder)
        return metrics.logs(totals, recorder)

    def score(self, hooks):
        """Evaluate the model on all rows; returns the logs."""
        totals, metrics, recorder, logs, end = np.zeros(3), None, None, {}, 0
        self._model.stop_evaluating = False
        hooks("on_test_begin")
        self._link.results = self._model.reset_metrics
        for begin, end, batch in self._parts(hooks.follow("test")):
            if hooks.follow("test"):
                hooks("on_test_batch_begin", begin)
            for rows in batch:
                if metrics is None:
                    metrics = self._owner._metrics(rows.targets, rows.data.sample_weight)
                    recorder = metrics.recorder()
                    self._publish(metrics, totals, recorder)
                totals += self._totals(rows)
                if recorder:
                    predictions = self._owner._predict(rows.data.inputs)
                    recorder.keep(rows.targets, predictions, rows.data.sample_weight)
            if hooks.follow("test"):
                logs = self._logs(metrics, totals, recorder)
                hooks("on_test_batch_end", end, logs)
            elif hooks.late():
                hooks.bar.on_test_batch_end(end, metrics.logs(totals, recorder))
            if self._model.stop_evaluating:
                break
        if metrics is not None:
            logs = self._logs(metrics, totals, recorder)
        if hooks.bar and not hooks.follow("test"):
            hooks.bar.on_test_batch_end(end, logs)
        hooks("on_test_end", logs)
        return logs

    def _totals(self, rows):
        """Loss times rows, right rows and rows, of one batch where its reduction is not a mean."""
        data = weighted(rows.data, self._owner._plan.reduction)
        return _engine.evaluate(self._network, data, self._owner._workspace)


class Arrays(Source):
    """Arrays: the engine goes over them by itself."""

    def __init__(
        self, owner, x, y, sample_weight, class_weight, batch_size, shuffle, training=False
    ):
        super().__init__(owner)
        self._rows = owner._rows(x, y, sample_weight, class_weight, training)
        owner._metrics(self._rows.targets, self._rows.data.sample_weight)  # builds them
        rows = len(self._rows.targets)
        self._batch_size = batch_size or rows
        self.steps = math.ceil(rows / self._batch_size)
        self._order = np.empty(rows, np.int64) if shuffle else None

    def train(self, hooks):
        """Train for an epoch; returns its logs."""
        totals = np.zeros((1, 3))
        metrics = self._owner._metrics(self._rows.targets, self._rows.data.sample_weight)
        recorder = self._recorder(metrics, totals[0])
        if recorder:
            recorder.rows = self._rows, self._order
        follow, steps = hooks.follow("train"), self.steps
        # Keras looks at `stop_training` after these.
        turns = follow or self._model.stop_training
        ahead = self._model.steps_per_execution if turns else steps
        step = 0
        while step < steps:
            first, until = step, min(step + ahead, steps)
            if follow:
                hooks("on_train_batch_begin", first)
            while step < until:
                step += self._take_steps(
                    self._rows, self._order, self._batch_size, step, until - step, totals
                )
                if not follow and hooks.late():
                    hooks.bar.on_train_batch_end(step - 1, metrics.logs(totals[0], recorder))
                if not follow and self._model.stop_training:  # set by a signal or a thread, say
                    break
            if follow:
                # A number that is none, if fewer steps are left: so it is in Keras.
                logs = self._logs(metrics, totals[0], recorder)
                hooks("on_train_batch_end", first + ahead - 1, logs)
            if self._model.stop_training:
                break
        logs = self._logs(metrics, totals[0], recorder)
        if hooks.bar and not follow:
            hooks.bar.on_train_batch_end(step - 1, logs)
        return logs

    def _parts(self, follow):
        """All rows at once, or as batches where somebody follows, or a loss or metric asks."""
        metrics = self._owner._metrics(self._rows.targets, self._rows.data.sample_weight)
        if not follow and metrics.together and self._owner._plan.reduction in MEAN:
            yield 0, self.steps - 1, [self._rows]
            return
        data, targets = self._rows
        for first in range(0, self.steps, self._model.steps_per_execution):
            last = min(first + self._model.steps_per_execution, self.steps)
            starts = [step * self._batch_size for step in range(first, last)]
            yield (
                first,
                first + self._model.steps_per_execution - 1,
                [
                    Rows(
                        data.part(start, start + self._batch_size),
                        targets[start : start + self._batch_size],
                    )
                    for start in starts
                ],
            )


class Batches(Source):
    """Batches that come from Keras's iterator, one at a time."""

    def __init__(self, owner, iterator):
        super().__init__(owner)
        self._iterator = iterator
        adapters = _keras_module("trainers.data_adapters")
        self._may_look = not isinstance(
            iterator.data_adapter, (adapters.ArrayDataAdapter, adapters.TFDatasetAdapter)
        )

    @property
    def steps(self):
        """Of an epoch, as far as is known."""
        return self._iterator.num_batches

    def train(self, hooks):
        """Train for an epoch; returns its logs."""
        follow, metrics, recorder = hooks.follow("train"), None, None
        totals, logs, end = np.zeros((1, 3)), {}, 0
        for begin, end, batch in self._turns():
            if follow:
                hooks("on_train_batch_begin", begin)
            for part in batch:
                rows = self._prepared(part)
                if metrics is None:
                    metrics = self._owner._metrics(rows.targets, rows.data.sample_weight)
                    recorder = self._recorder(metrics, totals[0])
                if recorder:
                    recorder.rows = rows, None
                self._take_steps(rows, None, len(rows.targets), 0, 1, totals)
            if follow:
                hooks("on_train_batch_end", end, self._logs(metrics, totals[0], recorder))
            elif hooks.late():
                hooks.bar.on_train_batch_end(end, metrics.logs(totals[0], recorder))
            if self._model.stop_training:
                break
        if metrics is not None:
            logs = self._logs(metrics, totals[0], recorder)
        if hooks.bar and not follow:
            hooks.bar.on_train_batch_end(end, logs)
        return logs

    def _parts(self, follow):
        self._show_weights()
        self._iterator.reset()
        for begin, end, batch in self._turns():
            yield begin, end, [self._prepared(part) for part in batch]

    def _turns(self):
        """The turns of an epoch, as `numbered` gives them."""
        turns = numbered(self._iterator)
        while True:
            self._show_weights()
            turn = next(turns, None)
            if turn is None:
                return
            yield turn

    def _show_weights(self):
        """Give the model its weights, if what makes the batches may look at them."""
        if self._may_look:
            self._link.write_weights()

    def _prepared(self, part):
        x, y, sample_weight = self._owner._keras.utils.unpack_x_y_sample_weight(part)
        return self._owner._rows(x, y, sample_weight, None)


def numbered(iterator):
    """The numbers of the first and the last step, and the batches, of each turn of an epoch."""
    for begin, *end, batch in iterator.enumerate_epoch():
        # Older versions of Keras leave the number of the last one out.
        yield begin, end[0] if end else begin + iterator.steps_per_execution - 1, batch


class Hooks:
    """The calls of Keras's callbacks, and the copies that they call for.

    Attributes
    ----------
    bar : ProgbarLogger or None
        Told of the steps now and then where no other callback follows them.
    """

    def __init__(self, keras, callbacks, link):
        self._keras, self._callbacks, self._link = keras, callbacks, link
        self.bar = getattr(callbacks, "_progbar", None)
        self._shown = time.perf_counter()
        self._known, self._needs = {}, {}

    def __call__(self, hook, *arguments):
        """Call this hook of all callbacks, the model knowing what they may ask it for."""
        if hook not in self._needs:
            self._needs[hook] = {
                self._need(callback, hook)
                for callback in self._callbacks.callbacks
                if self._overrides(callback, hook)
            }
        needs = self._needs[hook]
        if "all" in needs:
            self._link.write()
        elif "weights" in needs:
            self._link.write_weights()
        elif "rate" in needs:
            self._link.write_iterations()
        getattr(self._callbacks, hook)(*arguments)
        if "all" in needs:
            self._link.read()
        elif "rate" in needs:
            self._link.read_rate()

    def follow(self, kind):
        """Whether a callback other than the progress bar has hooks for single batches."""
        if kind not in self._known:
            names = [f"on_{kind}_batch_begin", f"on_{kind}_batch_end"]
            if kind == "train":
                names += ["on_batch_begin", "on_batch_end"]
            self._known[kind] = any(
                callback is not self.bar and self._overrides(callback, name)
                for callback in self._callbacks.callbacks
                for name in names
            )
        return self._known[kind]

    def late(self):
        """Whether there is a progress bar, and it was not told anything for a while."""
        now = time.perf_counter()
        if not self.bar or now - self._shown < _PROGRESS_INTERVAL:
            return False
        self._shown = now
        return True

    def _overrides(self, callback, hook):
        """Whether a callback does anything in a hook."""
        if (
            "batch" in hook
            and getattr(callback, "save_freq", None) == "epoch"
            and (self._is(callback, "ModelCheckpoint", "BackupAndRestore"))
        ):
            return False
        names = [hook]
        if hook.startswith("on_train_batch"):
            names.append(hook.replace("train_", ""))
        return any(
            getattr(getattr(callback, name), "__func__", None)
            is not getattr(self._keras.callbacks.Callback, name)
            for name in names
        )

    def _need(self, callback, hook):
        for name, need in _NEEDS.items():
            if self._is(callback, name):
                restores = getattr(callback, "restore_best_weights", True)
                return need if restores else ""
        return "" if "batch" in hook and self._is(callback, "TensorBoard") else "all"

    def _is(self, callback, *names):
        return any(type(callback) is getattr(self._keras.callbacks, name) for name in names)


class Silent:
    """The `Hooks` of a single batch: none."""

    bar = None

    def __call__(self, hook, *arguments):
        pass

    def follow(self, kind):
        return False

    def late(self):
        return False
