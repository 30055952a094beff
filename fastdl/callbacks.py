"""What happens between the steps of `MLP.fit`: Keras's callbacks, with their names and rules."""

import math
import sys
import time
import warnings

from . import checks


class Callback:
    """Base of the callbacks: every hook does nothing.

    Hooks that run in every step cost more than a step of a small network, so they are called only
    if a callback overrides one of them. `on_train_progress` serves instead where a few calls a
    second are enough.

    Attributes
    ----------
    model : MLP
        The network in training. Set its `stop_training` to True to end the training after this
        epoch, or in a hook of a step after this step; its `learning_rate` can be set too.
    params : dict
        "epochs", "steps" (of an epoch) and "verbose", as `fit` was given them.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP, Callback
    >>> class StopAfterTwo(Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         self.model.stop_training = epoch == 1
    >>> history = MLP([1, 1], loss="mse", seed=0).fit(
    ...     np.ones((4, 1)), np.ones(4), epochs=9, callbacks=[StopAfterTwo()], verbose=0)
    >>> history.epoch
    [0, 1]
    """

    model = None
    params = None

    def set_model(self, model):
        """Receive the network, before anything else."""
        self.model = model

    def set_params(self, params):
        """Receive the settings of `fit`, before training."""
        self.params = params

    def on_train_begin(self, logs=None):
        """Called once, before the first epoch."""

    def on_train_end(self, logs=None):
        """Called once, after the last epoch, with its logs; not after an error or Ctrl-C."""

    def on_epoch_begin(self, epoch, logs=None):
        """Called before each epoch, the first being number 0."""

    def on_epoch_end(self, epoch, logs=None):
        """Called after each epoch; what is put into `logs`, later callbacks and History see."""

    def on_train_batch_begin(self, batch, logs=None):
        """Called before each step, if overridden."""

    def on_train_batch_end(self, batch, logs=None):
        """Called after each step, if overridden, with the means over the epoch so far."""

    def on_train_progress(self, batch, logs=None):
        """Called a few times a second after a step, with the means over the epoch so far."""

    def _epochs_ahead(self):
        """How many epochs may end before it has to be told of the last one, and at once.

        Those before it are passed, all at a time; History and ProgressBar can always wait.
        """
        hooks = "on_epoch_begin", "on_epoch_end"
        return 1 if _overrides(self, hooks, by=(History, ProgressBar)) else math.inf

    def _pass_epochs(self, first, logs, begun):
        """Take note of epochs that have ended, as `CallbackList.pass_epochs` says."""

    # What decides about the rest of a training, by the names of attributes.
    _kept = ()

    def get_state(self):
        """What a `Checkpoint` keeps of this callback: None, or a dict of JSON types and, as lists,
        arrays."""
        return {name: getattr(self, name) for name in self._kept} if self._kept else None

    def set_state(self, state):
        """Take over what `get_state` gave, after `on_train_begin`, when a training is resumed."""
        for name, value in state.items():
            setattr(self, name, value)


class CallbackList:
    """Callbacks called one after the other."""

    def __init__(self, callbacks, model, params):
        self._callbacks = callbacks
        self._params = params
        for callback in callbacks:
            callback.set_params(params)
            callback.set_model(model)
            if isinstance(callback, Checkpoint):
                callback._hooks = self

    def overrides(self, *hooks):
        """Whether a callback defines one of these hooks."""
        return any(_overrides(callback, hooks) for callback in self._callbacks)

    def epochs_ahead(self):
        """How many epochs may end before the last of them has to be told of at once."""
        return min(callback._epochs_ahead() for callback in self._callbacks)

    def call(self, hook, *arguments):
        """Call this hook of all."""
        for callback in self._callbacks:
            getattr(callback, hook)(*arguments)

    def states(self):
        """Class and state of each callback that has one."""
        states = ((type(callback).__name__, callback.get_state()) for callback in self._callbacks)
        return [[name, state] for name, state in states if state is not None]

    def restore(self, states):
        """Give the callbacks the states of `states`."""
        kept = [callback for callback in self._callbacks if callback.get_state() is not None]
        for callback, (_, state) in zip(kept, states, strict=True):
            callback.set_state(state)

    def resume_epoch(self, epoch):
        """Tell those that show an epoch that it goes on."""
        for callback in self._callbacks:
            if isinstance(callback, ProgressBar):
                callback.on_epoch_begin(epoch)

    def end_epoch(self, steps):
        """Take note of the steps of an epoch that has ended, where they were not known."""
        if self._params["steps"] is None:
            self._params["steps"] = steps

    def pass_epochs(self, first, logs, begun):
        """Tell those that don't have to follow of epochs that ended, from `first` on.

        `logs` holds a list for each metric; `begun` steps of the epoch after them have been taken.
        """
        for callback in self._callbacks:
            callback._pass_epochs(first, logs, begun)


def _overrides(callback, hooks, by=()):
    """Whether it defines one of these hooks, in another way than these classes do."""
    return any(
        getattr(getattr(callback, hook), "__func__", None)
        not in [getattr(known, hook) for known in (Callback, *by)]
        for hook in hooks
    )


class History(Callback):
    """What `fit` returns: the metrics of each epoch.

    Attributes
    ----------
    history : dict of str to list of float
        "loss", for classification "accuracy", and with validation data "val_loss" and
        "val_accuracy": one number for each epoch.
    epoch : list of int
        The epochs' numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP
    >>> history = MLP([2, 3], seed=0).fit(np.eye(2), [0, 2], epochs=2, verbose=0)
    >>> list(history.history), history.epoch
    (['accuracy', 'loss'], [0, 1])
    """

    _kept = ("history", "epoch")

    def __init__(self):
        self.history = {}
        self.epoch = []

    def on_train_begin(self, logs=None):
        """Forget earlier epochs."""
        self.history = {}
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        """Note the metrics."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def _pass_epochs(self, first, logs, begun):
        self.epoch.extend(range(first, first + len(logs["loss"])))
        for name, values in logs.items():
            self.history.setdefault(name, []).extend(values)


class _Monitor(Callback):
    """Base of the callbacks that watch whether a metric still improves."""

    def __init__(self, monitor, mode, min_delta):
        checks.choice("mode", mode, ("auto", "min", "max"))
        if mode == "auto":
            metric = str(monitor).removeprefix("val_")
            if metric not in ("loss", "accuracy"):
                raise ValueError(f"mode: 'auto' can't tell whether {monitor!r} should fall or rise")
            mode = "min" if metric == "loss" else "max"
        self.monitor = monitor
        self.min_delta = abs(checks.number("min_delta", min_delta))
        self._sign = 1 if mode == "min" else -1

    def _value(self, logs):
        """The watched metric; where there is none, a warning and None."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            warnings.warn(
                f"{type(self).__name__}: there is no {self.monitor!r} among the metrics "
                f"{', '.join(logs or ())}",
                stacklevel=2,
            )
        return value

    def _improves(self, value, reference):
        """Whether `value` is better by more than `min_delta`; anything is better than None."""
        if reference is None:
            return True
        return self._sign * value + self.min_delta < self._sign * reference


class EarlyStopping(_Monitor):
    """Stop when a metric has not improved for a number of epochs.

    Parameters
    ----------
    monitor : str, default "val_loss"
    min_delta : float, default 0.0
        A change must exceed this to count as an improvement.
    patience : int, default 0
        The epochs without improvement after which training stops.
    verbose : {0, 1}, default 0
        1 prints when it stops or restores.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower or higher is better; "auto" knows losses and accuracies.
    baseline : float, optional
        Improvements that don't reach this don't reset the count.
    restore_best_weights : bool, default False
        At the end of training, whether or not this ended it, go back to the weights of the best
        epoch. After an exception or Ctrl-C, the weights stay as they are.
    start_from_epoch : int, default 0
        The first epoch to look at.

    Attributes
    ----------
    best : float or None
        The best value seen.
    best_epoch : int
        Its epoch, from 0.
    stopped_epoch : int
        The epoch that was stopped after, 0 if none was.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import EarlyStopping, MLP
    >>> stopping = EarlyStopping(monitor="loss", min_delta=0.01, patience=2)
    >>> history = MLP([1, 1], loss="mse", seed=0).fit(
    ...     np.zeros((4, 1)), np.zeros(4), epochs=100, callbacks=[stopping], verbose=0)
    >>> len(history.epoch)
    3
    """

    _kept = ("wait", "best", "best_epoch", "best_weights", "stopped_epoch")

    def __init__(
        self,
        monitor="val_loss",
        min_delta=0.0,
        patience=0,
        verbose=0,
        mode="auto",
        baseline=None,
        restore_best_weights=False,
        start_from_epoch=0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = checks.integer("patience", patience, low=0)
        self.verbose = checks.integer("verbose", verbose, low=0, high=1)
        self.baseline = baseline if baseline is None else checks.number("baseline", baseline)
        self.restore_best_weights = checks.boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = checks.integer("start_from_epoch", start_from_epoch, low=0)
        self._reset()

    def _reset(self):
        self.wait = 0
        self.best = None
        self.best_epoch = 0
        self.best_weights = None
        self.stopped_epoch = 0

    def on_train_begin(self, logs=None):
        """Start counting anew."""
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        """Look at the metric."""
        value = self._value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._improves(value, self.best):
            self.best = value
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _epochs_ahead(self):
        # Each epoch brings the end nearer by one at most. Called after every one of them, a small
        # network on few rows trained several times as long.
        if type(self) is not EarlyStopping or self.restore_best_weights:
            return super()._epochs_ahead()
        return max(1, self.patience - self.wait)

    def _pass_epochs(self, first, logs, begun):
        for epoch, values in enumerate(zip(*logs.values(), strict=True), first):
            self.on_epoch_end(epoch, dict(zip(logs, values, strict=True)))

    def on_train_end(self, logs=None):
        """Go back to the best weights, if asked for."""
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch: {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


class StopAt(_Monitor):
    """Stop when a metric is better than a target.

    Parameters
    ----------
    target : float
        Training ends with the first epoch whose metric is past this; one equal to it is not.
    monitor : str, default "val_accuracy"
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower or higher is better; "auto" knows losses and accuracies.

    Attributes
    ----------
    reached : bool
        Whether the target was.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP
    >>> from fastdl.callbacks import StopAt
    >>> stop = StopAt(0.1, monitor="loss")
    >>> history = MLP([1, 1], loss="mse", seed=0).fit(
    ...     np.ones((4, 1)), np.ones(4), epochs=1000, callbacks=[stop], verbose=0)
    >>> stop.reached, [loss < 0.1 for loss in history.history["loss"][-2:]]
    (True, [False, True])
    """

    _kept = ("reached",)

    def __init__(self, target, monitor="val_accuracy", mode="auto"):
        super().__init__(monitor, mode, min_delta=0.0)
        self.target = checks.number("target", target)
        self.reached = False

    def on_train_begin(self, logs=None):
        """Nothing is reached yet."""
        self.reached = False

    def on_epoch_end(self, epoch, logs=None):
        """Look at the metric."""
        value = self._value(logs)
        if value is not None and self._improves(value, self.target):
            self.reached = self.model.stop_training = True


class ReduceLROnPlateau(_Monitor):
    """Lower the learning rate when a metric has not improved for a number of epochs.

    The learning rate of each epoch joins the History as "learning_rate".

    Parameters
    ----------
    monitor : str, default "val_loss"
    factor : float in (0, 1), default 0.1
        What the learning rate is multiplied by.
    patience : int, default 10
        The epochs without improvement after which that happens.
    verbose : {0, 1}, default 0
        1 prints when it happens.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower or higher is better; "auto" knows losses and accuracies.
    min_delta : float, default 0.0001
        A change must exceed this to count as an improvement.
    cooldown : int, default 0
        Epochs after a reduction that are not counted.
    min_lr : float, default 0.0
        The learning rate doesn't fall below this.

    Examples
    --------
    >>> from fastdl.callbacks import ReduceLROnPlateau
    >>> ReduceLROnPlateau(factor=0.5, patience=3).factor
    0.5
    """

    _kept = ("wait", "best", "cooldown_counter")

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        verbose=0,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_lr=0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.factor = checks.number("factor", factor, low=0, high=1, low_open=True, high_open=True)
        self.patience = checks.integer("patience", patience, low=0)
        self.verbose = checks.integer("verbose", verbose, low=0, high=1)
        self.cooldown = checks.integer("cooldown", cooldown, low=0)
        self.min_lr = checks.number("min_lr", min_lr, low=0)
        self._reset()

    def _reset(self):
        self.wait = 0
        self.best = None
        self.cooldown_counter = 0

    def on_train_begin(self, logs=None):
        """Start counting anew."""
        self._reset()

    def on_epoch_end(self, epoch, logs):
        """Look at the metric."""
        rate = logs["learning_rate"] = self.model.learning_rate
        value = self._value(logs)
        if value is None:
            return
        if self.cooldown_counter:
            self.cooldown_counter -= 1
        if self._improves(value, self.best):
            self.best = value
            self.wait = 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self.model.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter = self.cooldown
                self.wait = 0
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: learning rate {self.model.learning_rate:g}")


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    For a rate that changes with every step see `fastdl.schedules`. The learning rate of each epoch
    joins the History as "learning_rate".

    Parameters
    ----------
    schedule : callable
        Takes the epoch, from 0, and the learning rate; returns the new one.
    verbose : {0, 1}, default 0
        1 prints each.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP
    >>> from fastdl.callbacks import LearningRateScheduler
    >>> halve = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else 0.1)
    >>> history = MLP([1, 1], loss="mse", seed=0).fit(
    ...     np.ones((4, 1)), np.ones(4), epochs=3, callbacks=[halve], verbose=0)
    >>> history.history["learning_rate"]
    [0.1, 0.05, 0.025]
    """

    def __init__(self, schedule, verbose=0):
        if not callable(schedule):
            raise TypeError(f"schedule: {schedule!r} can't be called")
        self.schedule = schedule
        self.verbose = checks.integer("verbose", verbose, low=0, high=1)

    def on_epoch_begin(self, epoch, logs=None):
        """Set the rate."""
        self.model.learning_rate = self.schedule(epoch, self.model.learning_rate)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: learning rate {self.model.learning_rate:g}")

    def on_epoch_end(self, epoch, logs):
        """Note the rate."""
        logs["learning_rate"] = self.model.learning_rate


class Checkpoint(Callback):
    """Write the network and the state of its training to a file, for `fit(resume_from=...)`.

    The file holds parameters, optimizer, counters of random numbers, the place in the epoch, and
    what the history and the other callbacks have noted. It is replaced as a whole, so that there is
    one whenever the process is killed. `fastdl.load` takes it as any other network.

    Parameters
    ----------
    path : path-like
    epochs : int, default 1
        A file is written after each so many epochs.
    seconds : float, optional
        And within an epoch, so many seconds after the last one.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fastdl import MLP
    >>> from fastdl.callbacks import Checkpoint
    >>> X, y = np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 3
    >>> whole, broken, resumed = (MLP([2, 8, 3], dropout=0.2, seed=0) for _ in range(3))
    >>> history = whole.fit(X, y, epochs=9, verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     history = broken.fit(X, y, epochs=5, callbacks=[Checkpoint(path)], verbose=0)
    ...     history = resumed.fit(X, y, epochs=9, resume_from=path, verbose=0)
    >>> len(history.epoch), bool((resumed.weights[0] == whole.weights[0]).all())
    (9, True)
    """

    _hooks = None

    def __init__(self, path, *, epochs=1, seconds=None):
        self.path = checks.path("path", path)
        self.epochs = checks.integer("epochs", epochs, low=1)
        self.seconds = None if seconds is None else checks.number("seconds", seconds, low=0)
        self._written = time.perf_counter()

    def on_train_begin(self, logs=None):
        """Start the clock."""
        self._written = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Write a file, if it is time."""
        if (epoch + 1) % self.epochs == 0 or self.model.stop_training:
            self.write()

    def on_train_progress(self, batch, logs=None):
        """Write a file, if it is time."""
        if self.seconds is not None and time.perf_counter() - self._written >= self.seconds:
            self.write()

    def write(self):
        """Write a file now, between two steps."""
        position = self.model._position
        if position is None:
            return  # An epoch is over, but its metrics are not known yet.
        training = {
            "position": position._asdict() | {"totals": list(map(float, position.totals))},
            "callbacks": self._hooks.states(),
            "stopped": self.model.stop_training,
        }
        self.model._save_training(self.path, training)
        self._written = time.perf_counter()


class ProgressBar(Callback):
    """Print each epoch's progress and metrics as Keras does; `fit` adds it unless `verbose` is 0.

    On a terminal and in a notebook the line grows while an epoch runs; elsewhere, and with
    `verbose` 2, it is printed once the epoch is over.

    Examples
    --------
    >>> from fastdl.callbacks import ProgressBar
    >>> ProgressBar.line(3, 4, 0.5, {"loss": 0.25}, ended=False)
    '3/4 ━━━━━━━━━━━━━━━───── 0s 167ms/step - loss: 0.2500'
    """

    _WIDTH = 20

    @classmethod
    def line(cls, step, steps, seconds, logs, *, ended=True, bar=True):
        """The line after `step` of `steps` steps; the time in it is what is left, or was taken.

        Where `steps` is None, their number is not known.
        """
        per_step = seconds / step
        if steps is None:
            steps, bar, ended = step, False, True
            parts = [f"{step}/Unknown"]
        else:
            parts = [f"{step:{len(str(steps))}d}/{steps}"]
        if bar:
            filled = cls._WIDTH * step // steps
            parts.append("━" * filled + "─" * (cls._WIDTH - filled))
        else:
            parts.append("-")
        parts.append(_duration(seconds if ended else per_step * (steps - step)))
        if not bar:
            parts.append("-")
        parts.append(_per_step(per_step))
        parts += [f"- {name}: {_metric(value)}" for name, value in logs.items()]
        return " ".join(parts)

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        if self.params["epochs"] > 1:
            print(self._title(epoch))
        self._start = time.perf_counter()
        self._width = 0
        self._live = self.params["verbose"] == 1 and (
            sys.stdout.isatty() or "ipykernel" in sys.modules
        )

    def on_train_progress(self, batch, logs=None):
        """Redraw the line."""
        if self._live:
            print(self._drawn(batch + 1, logs, self._elapsed(), ended=False), end="", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        """Print the line with all metrics."""
        print(self._drawn(self.params["steps"], logs, self._elapsed()), flush=True)

    def _pass_epochs(self, first, logs, begun):
        # Their time in equal parts, and all in one call: a notebook takes long for each.
        steps, elapsed = self.params["steps"], self._elapsed()
        metrics = [
            dict(zip(logs, values, strict=True)) for values in zip(*logs.values(), strict=True)
        ]
        seconds = elapsed / (len(metrics) + begun / steps)
        lines = []
        for epoch, metric in enumerate(metrics, first):
            lines += self._drawn(steps, metric, seconds), self._title(epoch + 1)
            self._width = 0
        print("\n".join(lines), flush=True)
        self._start += len(metrics) * seconds

    def _elapsed(self):
        return time.perf_counter() - self._start

    def _title(self, epoch):
        return f"Epoch {epoch + 1}/{self.params['epochs']}"

    def _drawn(self, step, logs, seconds, *, ended=True):
        """The line as the terminal takes it, over the one that stands there."""
        bar = self.params["verbose"] == 1
        text = self.line(step, self.params["steps"], seconds, logs or {}, ended=ended, bar=bar)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = text.encode(encoding, errors="replace").decode(encoding)
        # Blanks cover what is left of a longer line before.
        padded = text.ljust(self._width)
        self._width = len(text)
        return "\r" + padded if self._live else padded


def _duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest}s"


def _per_step(seconds):
    if seconds >= 1:
        return f"{seconds:.0f}s/step"
    return f"{seconds * 1e3:.0f}ms/step" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/step"


def _metric(value):
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if abs(value) > 1e-3 else f"{value:.4e}"
