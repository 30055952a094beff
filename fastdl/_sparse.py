"""Rows without their zeros: matrices of `scipy.sparse` as the engine takes them.

Dense rows that someone standardised, which made zeros other numbers, have in each column a number
that most of them share. They are sparse rows too, plus a row that is added to all: the shifts.

SciPy is not imported: a matrix is what has a method `tocsr`. The arrays of that are checked before
they are used as positions, so that wrong ones raise an error and never lead outside of memory.
"""

from functools import cached_property

import numpy as np

from . import checks

# Zeros behind the last entry, so that a vector that starts there may be read whole.
_ROOM = 16

# Blocks of features begin at multiples of this, so that the weights of an even number of outputs
# begin on a cache line.
_EDGE_UNIT = 8

# Rows that tell how often each feature occurs.
_SAMPLED_ROWS = 1024

# What entries cost in a step, by the share of the rows that have the feature, where the optimizer's
# step of the feature's weights costs 1: measured for batches of 32 and 128 outputs.
_ENTRY_COST = 6.4

# Shifts are looked for among so many rows at least. As many are for a first look; the second takes
# up to so many, with about so many numbers where rows are long.
_FEWEST_ROWS = 32
_COUNTED_ROWS = 256
_COUNTED_NUMBERS = 1 << 21

# A number that fewer of the rows share is not worth a shift, which costs what an entry does.
_FREQUENT = 1 / 16

# Columns are int32.
_MOST_FEATURES = 2**31 - 1


class Entries:
    """What rows without their zeros hold, one behind the other: columns and values, or codes.

    Each is made of the other when first asked for, and kept. Behind the last column and value there
    are 16 zeros.

    Parameters
    ----------
    columns : ndarray of int32, optional
    values : ndarray of float32 or float64, optional
    codes : tuple, optional
        Those of `kernels.coded_rows`, where columns and values are not given.
    """

    def __init__(self, columns=None, values=None, codes=None):
        self._codes = codes or ()  # not asked for yet
        self.dtype = codes[2].dtype if codes else values.dtype
        if not codes:
            self.columns, self.values = columns, values

    @cached_property
    def columns(self):
        return _with_room(self._codes[0], np.int32)

    @cached_property
    def values(self):
        _, numbers, table = self._codes
        return _with_room(table[numbers], self.dtype)

    @property
    def short_columns(self):
        """The columns, of codes as uint16 and without the zeros behind."""
        return self._codes[0] if self._codes else self.columns

    def codes(self, kernels, features, threads):
        """The codes, or None where values are too many."""
        if self._codes == ():
            self._codes = kernels.codes_of(self.columns, self.values, features, threads)
        return self._codes


class SparseRows:
    """Rows (n, features) without their zeros, in the form of the compiled kernels.

    Row b has its entries at `starts[b]` to `starts[b + 1]`, in ascending order of their columns,
    each column at most once.

    Parameters
    ----------
    starts : ndarray of int64 (n + 1,)
    entries : Entries
    features : int
    live : ndarray of int32, optional
        All columns that some row has, in ascending order; found when first asked for.
    shifts : ndarray (features,), optional
        Added to all rows; `live` names the columns where they are not zero too.
    """

    ndim = 2

    def __init__(self, starts, entries, features, live=None, shifts=None):
        self.starts = starts
        self.entries = entries
        self.shape = (len(starts) - 1, features)
        self.shifts = shifts
        self._live = live
        self._blocks = None

    @property
    def columns(self):
        return self.entries.columns

    @property
    def values(self):
        return self.entries.values

    @property
    def dtype(self):
        return self.entries.dtype

    def __len__(self):
        return self.shape[0]

    @property
    def live(self):
        if self._live is None:
            used = np.zeros(self.shape[1], bool)
            used[self.columns[self.starts[0] : self.starts[-1]]] = True
            self._live = np.flatnonzero(used).astype(np.int32)
        return self._live

    @property
    def arrays(self):
        """What kernels take that know no codes."""
        return self.starts, self.columns, self.values, self.live

    def blocks(self, kernels):
        """What the engine cuts rows by, as two arrays.

        Edges (blocks + 1,) lie between blocks of features that cost a step of training about the
        same; cuts (n, blocks - 1) count the entries of a row before each block but the first.
        """
        if self._blocks is None:
            count, rows = kernels.BLOCKS, min(len(self), _SAMPLED_ROWS)
            columns = self.entries.short_columns
            entries = columns[self.starts[0] : self.starts[rows]]
            cost = np.bincount(entries, minlength=self.shape[1]) * (_ENTRY_COST / max(rows, 1))
            cost[self.live] += 1
            cost = np.cumsum(cost)
            edges = np.searchsorted(cost, cost[-1] * np.arange(1, count) / count)
            edges = np.rint(edges / _EDGE_UNIT).astype(np.int64) * _EDGE_UNIT
            edges = np.concatenate([[0], np.minimum(edges, self.shape[1]), [self.shape[1]]])
            cuts = np.empty((len(self), count - 1), np.int32)
            kernels.part_rows(self.starts, columns, edges, cuts)
            self._blocks = edges, cuts
        return self._blocks

    def codes(self, kernels, threads):
        """The codes of all entries, or None where they have too many different values."""
        return self.entries.codes(kernels, self.shape[1], threads)

    @property
    def density(self):
        """The share that is not zero."""
        return int(self.starts[-1] - self.starts[0]) / max(self.shape[0] * self.shape[1], 1)

    def __getitem__(self, rows):
        """Some consecutive rows, as views."""
        start, stop, _ = rows.indices(len(self))
        starts = self.starts[start : stop + 1]
        features = self.shape[1]
        return SparseRows(starts, self.entries, features, self._live, self.shifts)

    @cached_property
    def dense(self):
        """All rows as an array, which is kept."""
        return self.toarray()

    def toarray(self, order=None, out=None):
        """All rows, or those that `order` names, as an array; `out` receives it if given."""
        if order is None:
            counts = np.diff(self.starts)
            entries = slice(self.starts[0], self.starts[-1])
        else:
            first = self.starts[order]
            counts = self.starts[order + 1] - first
            # The entries of a row are as far from its first one as in the result from there.
            shifts = first - (np.cumsum(counts) - counts)
            entries = np.repeat(shifts, counts)
            entries += np.arange(len(entries))
        if out is None:
            out = np.empty((len(counts), self.shape[1]), self.dtype)
        columns, values = self.columns[entries], self.values[entries]
        if self.shifts is None:
            out[...] = 0
        else:
            out[...] = self.shifts
            values = values + self.shifts[columns]
        out[np.repeat(np.arange(len(counts)), counts), columns] = values
        return out


def is_sparse(value):
    """Whether an argument is a matrix or an array of `scipy.sparse`, or acts like one."""
    return hasattr(value, "tocsr")


def as_rows(name, matrix, features, dtype):
    """A sparse matrix (n, features) of any format as SparseRows of `dtype`, itself left alone.

    Raises
    ------
    TypeError
        If it holds anything but integers, bools, float32 or float64.
    ValueError
        If it has another shape, or its arrays are not those of a CSR matrix.
    """
    shape = matrix.shape
    if len(shape) != 2 or shape[1] != features:
        raise ValueError(
            f"{name}: shape {shape} is not rows of {features} features, as the first layer takes"
        )
    if features > _MOST_FEATURES:
        raise ValueError(f"{name}: {features} features are more than {_MOST_FEATURES}")
    csr = matrix.tocsr()
    values = checks.real(name, csr.data)
    starts = _starts(name, csr.indptr, shape[0], min(len(csr.indices), len(values)))
    values = values[: starts[-1]]
    columns = checks.as_labels(f"{name}.indices", csr.indices[: starts[-1]], classes=features)
    if not _ascending(starts, columns):
        starts, columns, values = _sorted(starts, columns, values)
    values = values.astype(dtype, copy=False)
    present = values != 0
    if not present.all():
        starts, columns, values = _without(present, starts), columns[present], values[present]
    entries = Entries(_with_room(columns, np.int32), _with_room(values, dtype))
    return SparseRows(starts, entries, features)


def frequent_numbers(inputs, density):
    """The number that most rows of `inputs` (n, features) have in each column, or 0; or None.

    Inputs are finite. A sample of their rows is looked at: it is None where more than the share
    `density` of that differs from these numbers, where these are all 0, and for very few rows.
    """
    rows, features = inputs.shape
    if rows < _FEWEST_ROWS:
        return None
    # Two rows agree wherever both have the frequent number: on average in at least the share
    # (1 - density)**2 of the columns. A few pairs dismiss most data, in 20 microseconds.
    pairs = inputs[_spread(rows, _FEWEST_ROWS)]
    if np.mean(pairs[0::2] == pairs[1::2]) < 0.8 * (1 - density) ** 2:
        return None
    count = min(max(_FEWEST_ROWS, min(rows // 8, _COUNTED_NUMBERS // features)), _COUNTED_ROWS)
    # Column after column; what is added makes negative zeros positive.
    sample = np.sort(np.add(inputs[_spread(rows, count)].T, 0, order="C"), axis=1)
    first = np.ones(sample.shape, bool)
    np.not_equal(sample[:, 1:], sample[:, :-1], out=first[:, 1:])
    # The longest run of equal numbers in each column, as its length and place in one integer.
    starts = np.flatnonzero(first)
    runs = np.diff(starts, append=sample.size) * sample.size + starts
    columns = np.flatnonzero(starts % count == 0)
    lengths, places = np.divmod(np.maximum.reduceat(runs, columns), sample.size)
    frequent = lengths >= _FREQUENT * count
    if lengths[frequent].sum() < (1 - density) * sample.size:
        return None
    values = np.where(frequent, sample.reshape(-1)[places], 0).astype(inputs.dtype, copy=False)
    return values if values.any() else None


def _spread(rows, count):
    """The numbers of so many rows, from everywhere."""
    return np.arange(count) * rows // count


def finite(name, rows):
    """The argument, SparseRows, if nothing in it is NaN or infinite."""
    good = np.isfinite(rows.values)
    if not good.all():
        entry = int(np.argmin(good))
        index = int(np.searchsorted(rows.starts, entry, "right")) - 1, int(rows.columns[entry])
        raise ValueError(
            f"{name}: {rows.values[entry].item()} at index {index} is not a finite number"
        )
    return rows


def _starts(name, indptr, rows, entries):
    """Where each row begins, for so many rows and no more than so many entries."""
    starts = checks.as_labels(f"{name}.indptr", indptr)
    if starts.shape != (rows + 1,):
        raise ValueError(f"{name}.indptr: shape {starts.shape} is not {(rows + 1,)}")
    if starts[0] != 0 or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"{name}.indptr: not a sequence that rises from 0")
    if starts[-1] > entries:
        raise ValueError(
            f"{name}.indptr: {starts[-1]} entries are not in indices and data, which hold {entries}"
        )
    return starts


def _ascending(starts, columns):
    """Whether in each row columns rise, none of them twice."""
    rises = columns[1:] > columns[:-1]
    between = starts[(starts > 0) & (starts < len(columns))]
    rises[between - 1] = True
    return rises.all()


def _sorted(starts, columns, values):
    """The same rows with ascending columns, entries of one place added up in their order."""
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((columns, rows))
    columns, values = columns[order], values[order]
    new = np.ones(len(columns), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    sums = np.zeros(np.count_nonzero(new), values.dtype)
    np.add.at(sums, np.cumsum(new) - 1, values)
    return _without(new, starts), columns[new], sums


def _without(kept, starts):
    """`starts` after all entries but those in the mask `kept` are gone."""
    return np.concatenate([[0], np.cumsum(kept)])[starts]


def _with_room(array, dtype):
    """A copy with zeros behind."""
    copy = np.zeros(len(array) + _ROOM, dtype)
    copy[: len(array)] = array
    return copy
