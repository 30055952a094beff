"""`Blocks`: rows that training reads block by block, from files or from wherever they come."""

import contextvars
import functools
import glob
import itertools
import math
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from . import _direct, _engine, backends, checks
from ._optional import optional_import
from ._sparse import is_sparse

# Bytes, as float32, of what is read at once and of what is shuffled at once: a disk reads the first
# in longer than it takes to find it, and a few copies of the second are small beside NumPy.
_BLOCK_BYTES = 1 << 21
_BUFFER_BYTES = 1 << 24

# Bytes that the system is asked to read at once; Linux cuts longer requests short.
_PREFETCHED_BYTES = 1 << 17

# The share of its time that training may wait for direct reads. Beyond it, the disk is too slow for
# them, and files are read through the system's cache, which may hold them by the next pass.
_MOST_WAITED = 0.1

# Seconds to wait for the thread that reads ahead, once nobody wants what it reads.
_MOST_CLOSING = 0.05

# Odd numbers, of 32 and of 64 bits, that keep shuffles apart: those of the windows of a pass, and
# that of the blocks.
_WINDOW_KEY = 0x9E3779B1
_BLOCK_SEED = 0x9E3779B97F4A7C15

_NAMES = "X", "y", "sample_weight"


class Blocks:
    """Rows with targets that are read while training, more of them than memory holds.

    `MLP.fit` makes one of what it is given where that is no array in memory, so that only
    `block_rows` and `buffer_rows` need a `Blocks` of one's own.

    Parameters
    ----------
    X : numpy.memmap, other array with slices, path, sequence of paths, iterable, or callable
        - An array (n, ...), which is read slice by slice: a `numpy.memmap`, or a data set of HDF5
          or Zarr.
        - The path of a `.npy` or `.parquet` file, a pattern with `*`, a list of paths, or a folder.
          In a folder of `.npy` files, those whose names begin with `X` hold rows, `y` targets and
          `sample_weight` weights, each kind in the order of the names.
        - Without `y`: an iterable of blocks, tuples (X, y) or (X, y, sample_weight) of arrays or
          sparse matrices; or a callable that returns one for each epoch.
    y : array_like, path, sequence of paths, str or sequence of str, optional
        Targets, in memory or in `.npy` files; for Parquet files the column or columns that hold
        them. Their other columns, but for an index of pandas, are features, one of lists of k
        numbers being k features.
    sample_weight : array_like, path, sequence of paths or str, optional
        In the same way.
    block_rows : int, default 2 MB of float32
        Rows that are read at once. Blocks of an iterable are what it gives, and those of Parquet
        files are row groups.
    buffer_rows : int, default 16 MB of float32
        Rows that are shuffled together: whole blocks are taken until there are as many. Three
        times as many are in memory.

    Attributes
    ----------
    rows : int or None
        Their number, unknown for an iterable.

    Raises
    ------
    ValueError, TypeError
        If the parts don't go together.
    FileNotFoundError
        If there is no such file.
    ImportError
        For Parquet files, if the package pyarrow is missing.

    Notes
    -----
    An epoch takes the blocks in an order of its own, as many at a time as fill the buffer, and the
    rows of all these in an order of their own; both are functions of the network's seed and the
    number of the epoch. Blocks of an iterable come in its order. The last rows of a buffer that
    don't fill a batch go into the next one: wherever blocks end, all batches but an epoch's last
    are full. Where all rows fit the buffer, training is that on the same rows in memory, bit for
    bit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP, Blocks
    >>> def blocks():
    ...     for number in range(10):
    ...         X = np.random.default_rng(number).normal(size=(100, 2))
    ...         yield X, X[:, 0] > X[:, 1]
    >>> net = MLP([2, 8, 1], seed=0)
    >>> history = net.fit(Blocks(blocks, buffer_rows=500), epochs=10, verbose=0)
    >>> history.history["accuracy"][-1] > 0.9
    True
    """

    def __init__(self, X, y=None, sample_weight=None, *, block_rows=None, buffer_rows=None):
        if block_rows is not None:
            block_rows = checks.integer("block_rows", block_rows, low=1)
        if buffer_rows is not None:
            buffer_rows = checks.integer("buffer_rows", buffer_rows, low=1)
        self._source = _source(X, y, sample_weight, block_rows)
        self._buffer_rows = buffer_rows

    @property
    def rows(self):
        """The number of rows, None where it is not known."""
        return None if self._source.sizes is None else sum(self._source.sizes)

    def settings(self):
        """What the order of the rows depends on, besides the seed and the epoch."""
        sizes = self._source.sizes
        if sizes is None:
            return {"buffer_rows": self._buffer_rows}
        limit = self._limit(self._source.features)
        return {"rows": self.rows, "block_rows": max(sizes), "buffer_rows": limit}

    @property
    def prefetches(self):
        """Whether the system reads them ahead, so that no thread is needed for that."""
        return self._source.prefetches

    def check(self, features, epochs=1):
        """Raise a ValueError where rows have other features, or there are fewer passes in them."""
        if self._source.features not in (None, features):
            raise ValueError(
                f"X: rows of {self._source.features} features are not rows of {features}, as the "
                "first layer takes"
            )
        if epochs > 1 and not self._source.restarts:
            raise ValueError(
                f"X: an iterator gives its blocks once, not for {epochs} epochs: give a function "
                "that returns a new one for each"
            )

    def small(self):
        """Whether all rows fit the buffer."""
        return self.rows is not None and self.rows <= self._limit(self._source.features)

    def load(self, dtype):
        """X, y and sample_weight of all rows, X of this dtype; None where there are none."""
        blocks = range(len(self._source.sizes))
        X = _Buffer().rows(0, self.rows, self._source.features, dtype)
        return _rows(self._source, blocks, _NAMES, None, lambda: X)

    def pieces(
        self, prepare, dtype, seed, passes, batch_size, first=0, in_turn=False, closing=None
    ):
        """Parts of the passes through all rows as they are trained on: gives Pieces.

        Parameters
        ----------
        prepare : callable
            Makes `_engine.Data` of X, y, sample_weight and their names.
        dtype : numpy.dtype
            Of the rows.
        seed : int
        passes : iterable of int or None
            The number of each pass, which its order is a function of; None for the rows' own order.
        batch_size : int
        first : int, default 0
            The first step that is wanted of the first pass.
        in_turn : bool, default False
            Whether a piece is done with when the next one is asked for, so that files can be read
            into its memory; otherwise when the next but one is.
        closing : threading.Event, optional
            Set from another thread: no further block is taken.
        """
        buffers = [_Buffer(), _Buffer()]
        reader = _Reader() if in_turn and self.prefetches else None
        try:
            for number in passes:
                yield from self._pass(
                    prepare, dtype, seed, number, batch_size, first, buffers, reader, closing
                )
                first = 0
        finally:
            if reader:
                reader.close()

    def _pass(self, prepare, dtype, seed, number, batch_size, first, buffers, reader, closing):
        windows, begin = self._windows(seed, number, batch_size, closing), 0
        if self._source.sizes is not None:
            windows = list(windows)
            begin = _row_of_piece([window.rows for window in windows], first, batch_size)
        offset, kept = 0, None
        source = self._source

        def room(window, buffer):
            # There are fewer rows kept than a batch has.
            begin = source.begin(window.blocks[0])
            return buffer.rows(batch_size, window.rows, source.features, dtype, begin)

        for index, (window, following) in enumerate(_with_next(windows)):
            last = following is None
            start, offset = offset, offset + window.rows
            if offset <= begin:
                continue
            names = [f"{name} in {window.name}" for name in _NAMES]
            there = reader.finish(source, window, room(window, buffers[0])) if reader else ()
            take = functools.partial(room, window, buffers[0])
            parts = _rows(source, window.blocks, names, kept, take, there)
            buffers.reverse()
            if not last and reader:
                reader.begin(source, following, room(following, buffers[0]))
            elif not last:
                source.prefetch(following.blocks)
            parts = _part(parts, max(begin - start, 0), None)
            count = parts[0].shape[0]
            whole = count if last else count - count % batch_size
            kept = _part(parts, whole, None)
            step, begin = begin // batch_size, begin + whole
            steps = -(-whole // batch_size)
            if steps and step + steps > first:
                data = prepare(*_part(parts, 0, whole), names)
                key = None if number is None else (number + index * _WINDOW_KEY) % 2**32
                yield Piece(data, step, steps, last, key)

    def _limit(self, features):
        return self._buffer_rows or max(1, _BUFFER_BYTES // (4 * features))

    def _windows(self, seed, number, batch_size, closing):
        """The blocks of a pass, in its order, as they are shuffled together."""
        source = self._source
        if source.sizes is None:
            blocks = iter(source)
        else:
            blocks = np.arange(len(source.sizes))
            if number is not None:
                backends.current().permutation((seed + _BLOCK_SEED) % 2**64, number, blocks)
            blocks = blocks.tolist()
        # With fewer than a batch there would be windows without a step of their own.
        rows, taken = 0, []
        for block in blocks:
            if closing and closing.is_set():
                raise InterruptedError("nobody wants the blocks any more")
            taken.append(block)
            rows += source.rows_of(block)
            if rows >= max(self._limit(source.features), batch_size):
                yield _window(source, taken, rows)
                rows, taken = 0, []
        if taken:
            yield _window(source, taken, rows)


class Piece(NamedTuple):
    """Rows of a pass that are shuffled together and trained on one after the other.

    `start` is the first of their `steps` steps, counted in the pass, which ends with the `last`.
    With the network's seed, `key` is what their order is a function of.
    """

    data: _engine.Data
    start: int
    steps: int
    last: bool
    key: int | None


class InTurn:
    """Takes what a generator gives, which works on it then."""

    def __init__(self, generator):
        self._generator = generator

    def take(self):
        """The next one; what the one before held is then free to be overwritten."""
        return next(self._generator)

    def close(self):
        """Let go of it."""
        self._generator.close()


class Ahead:
    """Takes what a generator gives, which meanwhile works on the next in a thread of its own."""

    def __init__(self, generator, closing):
        self._generator, self._closing = generator, closing
        self._thread = ThreadPoolExecutor(1, "fastdl-blocks")
        self._ask()

    def _ask(self):
        # It sees the backend of the caller's context.
        context = contextvars.copy_context()
        self._next = self._thread.submit(context.run, next, self._generator)

    def take(self):
        """The next one; what the one before held is then free to be overwritten."""
        piece = self._next.result()
        self._ask()
        return piece

    def close(self):
        """Have the thread end; blocks that are long in coming it may still wait for then."""
        self._closing.set()
        ended, _ = wait([self._next], timeout=_MOST_CLOSING)
        self._thread.shutdown(wait=bool(ended), cancel_futures=True)


# ------------------------------------------------------------------------------- parts of a pass


class _Window(NamedTuple):
    """Blocks that are shuffled together."""

    blocks: list
    rows: int
    name: str


def _window(source, blocks, rows):
    if source.sizes is None:
        numbers = [block.number for block in blocks]
    else:
        # Ascending, as they lie on the disk and as the rows lie in memory.
        numbers = blocks = sorted(blocks)
    more = "..." if len(numbers) > 4 else ""
    name = f"block{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:4]))}{more}"
    return _Window(blocks, rows, name)


def _with_next(items):
    """Each item and the one after it, None after the last."""
    items = iter(items)
    for item in items:
        for following in items:
            yield item, following
            item = following
        yield item, None


def _row_of_piece(rows, step, batch_size):
    """The first row of the piece that holds a step, where windows have so many rows."""
    begin = 0
    for end in np.cumsum(rows)[:-1].tolist():
        end -= end % batch_size
        if end > step * batch_size:
            break
        begin = end
    return begin


class _Buffer:
    """Memory that is kept from one piece to the next."""

    def __init__(self):
        self._memory = None

    def rows(self, before, count, features, dtype, begin=0):
        """An array (before + count, features), with what was in it.

        Row number `before` lies as far from the start of a sector as byte `begin` of a file.
        """
        size = features * dtype.itemsize
        length = (before + count) * size
        if self._memory is None or len(self._memory) < length + _direct.SECTOR:
            self._memory = _engine.aligned_zeros(length + _direct.SECTOR, np.dtype(np.uint8))
        start = (begin - before * size - self._memory.ctypes.data) % _direct.SECTOR
        start -= start % dtype.itemsize
        return self._memory[start : start + length].view(dtype).reshape(-1, features)


class _Reader:
    """Reads the rows of files directly while training goes on, as long as they come in time."""

    def __init__(self):
        self._reads, self._window, self._blocks = _direct.Reads(), None, []
        self._waited, self._began = 0.0, time.perf_counter()

    def begin(self, source, window, X):
        """Begin to read a window's rows to the end of X, or have the system read them ahead."""
        late = self._waited > _MOST_WAITED * (time.perf_counter() - self._began)
        wanted = {} if late else source.direct(window.blocks, X[-window.rows :])
        wanted = dict(itertools.islice(wanted.items(), _direct.DEPTH))
        self._window, self._blocks = window, list(wanted)
        self._reads.begin(list(wanted.values()))
        source.prefetch([block for block in window.blocks if block not in wanted])

    def finish(self, source, window, X):
        """Wait for them; returns the blocks whose rows are there."""
        early = window is self._window
        if not early:
            self.begin(source, window, X)
        now = time.perf_counter()
        filled = self._reads.finish()
        if early:
            self._waited += time.perf_counter() - now
        return {block for block, full in zip(self._blocks, filled, strict=True) if full}

    def close(self):
        """Wait for what is under way."""
        self._reads.close()


def _part(parts, start, stop):
    return [part if part is None else part[start:stop] for part in parts]


def _rows(source, blocks, names, kept, room, there=()):
    """X, y and sample_weight: rows that were kept, then those of the blocks.

    `room()` is an array with place for them at its end, where those of the blocks in `there` are
    already.
    """
    if source.sizes is None and any(is_sparse(block.X) for block in blocks):
        scipy_sparse = optional_import("scipy.sparse", extra="data")
        parts = [kept[0]] if kept else []
        X = scipy_sparse.vstack([*parts, *(block.X for block in blocks)], format="csr")
        targets = [block[2:] for block in blocks]
    else:
        X = room()
        place = len(X) - sum(source.rows_of(block) for block in blocks)
        first = place
        if kept:
            first -= kept[0].shape[0]
            X[first:place] = kept[0].toarray() if is_sparse(kept[0]) else kept[0]
        targets = []
        for block in blocks:
            rows = X[place : place + source.rows_of(block)]
            targets.append(source.read(block, None if block in there else rows))
            place += len(rows)
        X = X[first:]
    others = zip(*([kept[1:]] if kept else []), *targets, strict=True)
    return X, *(_concatenated(*named) for named in zip(names[1:], others, strict=True))


def _concatenated(name, arrays):
    """Arrays as one, or None if they all are."""
    missing = [array is None for array in arrays]
    if all(missing):
        return None
    if any(missing):
        raise ValueError(f"{name}: some blocks have it, and others don't")
    for array in arrays:
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(f"{name}: shape {array.shape} is not like {arrays[0].shape}")
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


# ----------------------------------------------------------------------------- where rows come from
#
# `_Arrays` and `_Parquet` know the `sizes` of their blocks, `_Iterable` none. Each has `features`,
# and `read`, which writes the X of a block to an array, unless given None, and returns its y and
# sample_weight.


class _Source:
    """What a source is unless it says otherwise: passes without end, and nothing read ahead."""

    restarts = True
    prefetches = False

    def rows_of(self, block):
        """How many rows a block has."""
        return self.sizes[block]

    def begin(self, block):
        """Where a block lies in its file."""
        return 0

    def prefetch(self, blocks):
        """Have the system read blocks meanwhile, where `prefetches` says so.

        Then `direct` says what can be read without the system's memory.
        """


def _source(X, y, sample_weight, block_rows):
    if are_paths(X):
        files = _files("X", X)
        if all(file.endswith(".parquet") for file in files):
            return _Parquet(files, y, sample_weight, block_rows)
        if y is None and isinstance(X, (str, os.PathLike)) and os.path.isdir(X):
            named = {
                name: [f for f in files if os.path.basename(f).startswith(name)] for name in _NAMES
            }
            if not named["X"] or not named["y"]:
                raise FileNotFoundError(f"X: {X} holds no .npy files named X... and y...")
            files, y, sample_weight = named["X"], named["y"], named["sample_weight"] or None
        elif y is None:
            raise TypeError("y: rows in .npy files need targets")
        return _Arrays(files, y, sample_weight, block_rows)
    if y is not None:
        return _Arrays(X, y, sample_weight, block_rows)
    if hasattr(X, "shape"):
        raise TypeError("y: an array of rows needs targets")
    if sample_weight is not None:
        raise TypeError("sample_weight: the blocks of an iterable bring their own, as third part")
    if block_rows is not None:
        raise TypeError("block_rows: the blocks of an iterable are what it gives")
    return _Iterable(X)


def are_paths(value):
    """Whether it names files: one path, or several."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(each, (str, os.PathLike)) for each in value)
    return isinstance(value, (str, os.PathLike))


def _files(name, paths):
    """The files that paths, patterns and folders stand for."""
    found = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = os.fspath(path)
        if os.path.isdir(path):
            files = sorted(glob.glob(os.path.join(glob.escape(path), "*.parquet")))
            files = files or sorted(glob.glob(os.path.join(glob.escape(path), "*.npy")))
        elif os.path.exists(path):
            files = [path]
        else:
            files = sorted(glob.glob(path))
        if not files:
            raise FileNotFoundError(f"{name}: no .npy or .parquet file at {path}")
        found += files
    kinds = {os.path.splitext(file)[1] for file in found}
    if kinds not in ({".npy"}, {".parquet"}):
        raise ValueError(f"{name}: files {', '.join(sorted(kinds))} are not .npy or .parquet alone")
    return found


class _Arrays(_Source):
    """Arrays and `.npy` files."""

    def __init__(self, X, y, sample_weight, block_rows):
        self._columns = [
            None if value is None else _Column(name, value)
            for name, value in zip(_NAMES, (X, y, sample_weight), strict=True)
        ]
        X = self._columns[0]
        for name, column in zip(_NAMES[1:], self._columns[1:], strict=True):
            if column is not None and column.rows != X.rows:
                raise ValueError(f"{name}: {column.rows} rows are not the {X.rows} of X")
        if not X.rows or not X.width:
            raise ValueError("X: there are no rows")
        self.features = X.width
        block_rows = block_rows or _block_rows(self.features)
        # No block lies in two files.
        self._blocks = [
            (start, min(start + block_rows, stop))
            for begin, stop in zip(X.offsets[:-1], X.offsets[1:], strict=True)
            for start in range(begin, stop, block_rows)
        ]
        self.sizes = [stop - start for start, stop in self._blocks]
        self.prefetches = X.prefetches

    def prefetch(self, blocks):
        for block in blocks:
            self._columns[0].prefetch(*self._blocks[block])

    def begin(self, block):
        return self._columns[0].begin(self._blocks[block][0])

    def direct(self, blocks, out):
        """For blocks that can be read directly into `out`, which takes all: path, begin, rows."""
        found, place = {}, 0
        for block in blocks:
            rows = out[place : place + self.sizes[block]]
            place += len(rows)
            request = self._columns[0].direct(self._blocks[block][0], rows)
            if request:
                found[block] = request
        return found

    def read(self, block, out):
        start, stop = self._blocks[block]
        X, *others = self._columns
        if out is not None:
            X.read(start, stop, out)
        return [column and column.part(start, stop) for column in others]


def _block_rows(features):
    """The rows of a block where nobody says otherwise: if possible, whole sectors of a file.

    Then all blocks lie to sectors as they do in memory, one after the other.
    """
    rows = max(1, _BLOCK_BYTES // (4 * features))
    unit = _direct.SECTOR // math.gcd(4 * features, _direct.SECTOR)
    return rows - rows % unit or rows


class _Column:
    """One array, or several files as one: of `rows` rows, each `width` numbers."""

    def __init__(self, name, value):
        files = [np.load(file, "r") for file in _files(name, value)] if are_paths(value) else None
        parts = files or [value if hasattr(value, "shape") else np.asarray(value)]
        if is_sparse(value):
            raise TypeError(f"{name}: a sparse matrix is in memory: fit takes it as it is")
        checks.real(name, np.empty(0, parts[0].dtype))
        self.dtype, self._shape = parts[0].dtype, parts[0].shape[1:]
        for part in parts:
            if not part.ndim or (part.dtype, part.shape[1:]) != (self.dtype, self._shape):
                raise ValueError(
                    f"{name}: {part.dtype} {part.shape} is not rows {self.dtype} {self._shape}"
                )
        if name == "X" and not self._shape:
            raise ValueError(f"{name}: shape {parts[0].shape} is not rows of features")
        self.width = int(np.prod(self._shape))
        self._parts = [_FileRows.of(part) or part for part in parts]
        self.offsets = np.cumsum([0, *map(len, parts)]).tolist()
        self.rows = self.offsets[-1]
        self.prefetches = all(isinstance(part, _FileRows) for part in self._parts)

    def _spans(self, start, stop):
        """The parts that some rows lie in, and there, from where to where."""
        for part, offset in zip(self._parts, self.offsets, strict=False):
            low, high = max(start - offset, 0), min(stop - offset, len(part))
            if low < high:
                yield part, low, high, low + offset - start

    def read(self, start, stop, out):
        """Write some rows to `out` (stop - start, width), which may be of another dtype."""
        for part, low, high, place in self._spans(start, stop):
            rows = out[place : place + high - low]
            if not isinstance(part, _FileRows):
                rows.reshape(-1, *self._shape)[...] = part[low:high]
            elif rows.dtype == self.dtype:
                part.read(low, rows)
            else:
                read = np.empty(rows.shape, self.dtype)
                part.read(low, read)
                rows[...] = read

    def begin(self, start):
        """Where a row begins in its file; 0 for rows that are in none."""
        part, low, _, _ = next(self._spans(start, start + 1))
        return part.begin(low) if isinstance(part, _FileRows) else 0

    def direct(self, start, out):
        """The path, where rows begin there, and `out`, if they can be read directly, or None."""
        part, low, high, _ = next(self._spans(start, start + len(out)))
        if out.dtype != self.dtype or high - low < len(out):
            return None
        begin = part.begin(low)
        return (part.path, begin, out) if _direct.fits(begin, out) else None

    def prefetch(self, start, stop):
        """Have some rows read into the system's memory."""
        if self.prefetches:
            for part, low, high, _ in self._spans(start, stop):
                part.prefetch(low, high)

    def part(self, start, stop):
        """Some rows, in an array of its own."""
        out = np.empty((stop - start, self.width), self.dtype)
        self.read(start, stop, out)
        return out.reshape(-1, *self._shape)


class _FileRows(NamedTuple):
    """Rows that lie one after the other in a file.

    They are read, since pages of a file that is mapped would count as the process's memory.
    """

    path: str
    offset: int
    rows: int
    size: int  # of a row, in bytes

    @classmethod
    def of(cls, array):
        """Those of a numpy.memmap; None for arrays that can't be read in this way."""
        if (
            not isinstance(array, np.memmap)
            or array.filename is None
            or array.mode == "c"  # changes are in memory alone
            or not array.flags.c_contiguous
        ):
            return None
        memory = array.base
        while isinstance(memory, np.ndarray):
            memory = memory.base
        if not isinstance(memory, mmap.mmap):
            return None
        # Of a part of an array `offset` is that of the whole.
        mapped = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        begin = array.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
        size = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        return cls(os.fspath(array.filename), mapped + begin, len(array), size)

    def __len__(self):
        return self.rows

    def begin(self, row):
        """Where a row begins in the file."""
        return self.offset + row * self.size

    def read(self, start, out):
        """Read rows from `start` on into a contiguous array."""
        memory = memoryview(out.reshape(-1).view(np.uint8))
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.begin(start))
            while len(memory):
                count = file.readinto(memory)
                if not count:
                    raise ValueError(f"X: {self.path} has become shorter")
                memory = memory[count:]

    def prefetch(self, start, stop):
        """Have the system read rows while the process does other things."""
        if not hasattr(os, "posix_fadvise"):
            return
        with open(self.path, "rb", buffering=0) as file:
            end = self.begin(stop)
            for begin in range(self.begin(start), end, _PREFETCHED_BYTES):
                length = min(_PREFETCHED_BYTES, end - begin)
                os.posix_fadvise(file.fileno(), begin, length, os.POSIX_FADV_WILLNEED)


class _Parquet(_Source):
    """Parquet files, whose row groups are the blocks."""

    def __init__(self, files, y, sample_weight, block_rows):
        if block_rows is not None:
            raise TypeError("block_rows: the blocks of Parquet files are their row groups")
        if y is None:
            raise TypeError("y: name the column of the Parquet files that holds the targets")
        self._parquet = optional_import("pyarrow.parquet", extra="parquet")
        if not isinstance(sample_weight, str | None):
            raise TypeError("sample_weight: name the column of the Parquet files that holds it")
        targets = [y] if isinstance(y, str) else list(y)
        weights = [] if sample_weight is None else [sample_weight]
        self._single = isinstance(y, str)
        self._groups = []
        names, index = None, []
        for file in files:
            with self._open(file) as opened:
                found = opened.schema_arrow.names
                index += (opened.schema_arrow.pandas_metadata or {}).get("index_columns", ())
                metadata = opened.metadata
                self._groups += [
                    (file, group, metadata.row_group(group).num_rows)
                    for group in range(metadata.num_row_groups)
                ]
            if names is None:
                names = found
            if set(found) != set(names):
                raise ValueError(f"X: the columns of {file} are not those of {files[0]}")
        for name, columns in (("y", targets), ("sample_weight", weights)):
            for column in columns:
                if column not in names:
                    raise ValueError(f"{name}: {column!r} is not one of the columns {names}")
        # An index of pandas that is a range is a dict of its ends.
        others = {*targets, *weights, *(name for name in index if isinstance(name, str))}
        self._features = [name for name in names if name not in others]
        self._targets, self._weights = targets, weights
        self._groups = [group for group in self._groups if group[2]]
        self.sizes = [rows for _, _, rows in self._groups]
        if not self.sizes or not self._features:
            raise ValueError("X: there are no rows of features")
        self.features = _numbers("X", self._table(0), self._features).shape[1]

    def read(self, block, out):
        table = self._table(block)
        X = _numbers("X", table, self._features)
        if X.shape[1] != self.features:
            raise ValueError(
                f"X: {self._name(block)} has {X.shape[1]} features, the first one {self.features}"
            )
        out[...] = X
        y = _numbers("y", table, self._targets)
        if self._single and y.shape[1] == 1:
            y = y[:, 0]
        if not self._weights:
            return y, None
        weights = _numbers("sample_weight", table, self._weights)
        if weights.shape[1] != 1:
            raise ValueError(
                f"sample_weight: column {self._weights[0]!r} is no number for each row"
            )
        return y, weights[:, 0]

    def _name(self, block):
        file, group, _ = self._groups[block]
        return f"row group {group} of {file}"

    def _table(self, block):
        file, group, _ = self._groups[block]
        with self._open(file) as opened:
            return opened.read_row_group(group)

    def _open(self, file):
        try:
            return self._parquet.ParquetFile(file)
        except ValueError as error:  # those of pyarrow name no file
            raise ValueError(f"X: {file}: {error}") from error


def _numbers(name, table, columns):
    """Columns of a table as an array (rows, numbers)."""
    arrays = []
    for column in columns:
        chunks = table.column(column).combine_chunks()
        if hasattr(chunks, "flatten") and hasattr(chunks.type, "value_type"):
            compute = optional_import("pyarrow.compute", extra="parquet")
            lengths = compute.unique(compute.list_value_length(chunks)).to_pylist()
            if chunks.null_count or len(lengths) != 1 or not lengths[0]:
                raise ValueError(f"{name}: the lists of column {column!r} differ in length")
            values = (
                chunks.flatten().to_numpy(zero_copy_only=False).reshape(len(chunks), lengths[0])
            )
        else:
            values = chunks.to_numpy(zero_copy_only=False)[:, np.newaxis]
        arrays.append(checks.real(f"{name}: column {column!r}", values))
    return np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0]


class _Iterable(_Source):
    """Blocks as an iterable gives them."""

    sizes = None

    def __init__(self, blocks):
        if not callable(blocks) and not hasattr(blocks, "__iter__"):
            raise TypeError(f"X: {blocks!r} gives no blocks, and there is no y")
        self._blocks = blocks
        self.restarts = callable(blocks) or iter(blocks) is not blocks
        self.features = None

    def __iter__(self):
        found = False
        for number, block in enumerate(self._blocks() if callable(self._blocks) else self._blocks):
            if not isinstance(block, (tuple, list)) or len(block) not in (2, 3):
                raise TypeError(f"X: block {number} is not a tuple (X, y) or (X, y, sample_weight)")
            X, y, sample_weight = (*block, None)[:3]
            if not is_sparse(X):
                X = checks.real(f"X in block {number}", X)
                if X.ndim < 2:
                    raise ValueError(
                        f"X in block {number}: shape {X.shape} is not rows of features"
                    )
                X = X.reshape(len(X), math.prod(X.shape[1:]))
            others = [None if part is None else np.asarray(part) for part in (y, sample_weight)]
            for name, part in zip(_NAMES[1:], others, strict=True):
                if part is not None and part.shape[:1] != X.shape[:1]:
                    raise ValueError(
                        f"{name} in block {number}: shape {part.shape} does not match X {X.shape}"
                    )
            if self.features not in (None, X.shape[1]):
                raise ValueError(
                    f"X in block {number}: {X.shape[1]} features are not the {self.features} of "
                    "those before"
                )
            if X.shape[0]:
                self.features, found = X.shape[1], True
                yield _Block(number, X, *others)
        if not found:
            raise ValueError("X: there are no blocks with rows")

    def rows_of(self, block):
        return block.X.shape[0]

    def read(self, block, out):
        out[...] = block.X
        return block.y, block.sample_weight


class _Block(NamedTuple):
    number: int
    X: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray | None
