"""The training engine in Numba: whole epochs in one call, user-written functions included.

The twin of `_engine.h`, on one thread: each step runs the layers forward, the loss, and the layers
backward, where the gradient of a tile of weights goes straight to the optimizer. Every product is
made of one operation, adding multiples of some rows of a matrix, so that zeros among the inputs
and activations are skipped without a kernel of their own; where nothing is zero, all rows are
taken.

A user's function is compiled into a loop over arrays that the engine calls by its address. The
engine itself is thus compiled once for each dtype, whatever it is given, and then cached on disk.
"""

import functools
import inspect
import math
import platform
import time
import types as python_types
from typing import NamedTuple

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .jit_kernels import (
    _adam_steps,
    _permutation,
    _philox,
    activation_backward,
    activation_forward,
    add_penalty,
    binary_crossentropy,
    categorical_crossentropy,
    huber,
    mean_absolute_error,
    mean_squared_error,
    poisson,
    rmsprop_update,
    sgd_update,
    sparse_categorical_crossentropy,
)
from .reference import CUSTOM, LINEAR, LOG_SOFTMAX, SOFTMAX

# Multiply-add may be fused; nothing else that changes results, NaN above all.
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}
# Python calls the outermost function alone: a quarter of the time goes into such entrances.
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_compile_entrance = numba.njit(**_OPTIONS)
_compile = numba.njit(**_OPTIONS, **_INNER)
# A sum across the lanes of a vector needs another order of its additions as well.
_compile_sums = numba.njit(**_OPTIONS | {"fastmath": {"contract", "reassoc"}}, **_INNER)

LOSSES = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "poisson",
    "custom_loss",
)
UPDATES = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "custom")
_BINARY, _CATEGORICAL, _SPARSE, _SQUARED, _ABSOLUTE, _HUBER, _POISSON, _CUSTOM_LOSS = range(8)
_SGD, _MOMENTUM, _NESTEROV, _RMSPROP, _ADAM, _CUSTOM_UPDATE = range(len(UPDATES))

# Rows of a batch whose nonzero elements are listed at a time, and the columns that they then meet:
# these columns of a weight matrix are still in the cache for the next row.
_LISTED_ROWS, _PANEL = 32, 128
# Rows of a weight matrix that the gradients of the layer below are worked out from at a time.
_DOT_ROWS = 64
# Elements of a tile of weight gradients, and the rows of the batch that add to it at a time.
_TILE, _TILE_BATCH = 2048, 128

# Lanes that a sum keeps in registers: half of them are a register file's worth of vectors, which
# hides the latency of the additions; and what is left is done in pieces of `_NARROW` lanes.
_AVX512 = bool(binding.get_host_cpu_features().get("avx512f")) and not numba.config.CPU_NAME
_WIDE = 128 if _AVX512 else 64
_NARROW = 16

# Numbers behind a list that may be written with it.
_ROOM = 16


# ------------------------------------------------------------------------------ in terms of LLVM


class _Vectors:
    """Vectors of so many numbers of a type, as a builder of LLVM's code takes them."""

    def __init__(self, builder, real, lanes):
        self._builder, self._lanes = builder, lanes
        self.kind = ir.VectorType(real, lanes)
        self._pointer = self.kind.as_pointer()
        self._align = 8 if isinstance(real, ir.DoubleType) else 4
        self.letter = "i" if isinstance(real, ir.IntType) else "f"
        self._suffix = f"v{lanes}{self.letter}{8 * self._align}.p0"
        self.zeros = ir.Constant(self.kind, None)

    def spread(self, scalar):
        """A number in all lanes."""
        builder, bits = self._builder, ir.IntType(32)
        lane = ir.Constant(ir.VectorType(scalar.type, self._lanes), ir.Undefined)
        return builder.shuffle_vector(
            builder.insert_element(lane, scalar, bits(0)),
            lane,
            ir.Constant(ir.VectorType(bits, self._lanes), [0] * self._lanes),
        )

    def first(self, count):
        """The mask of the first `count` lanes."""
        ascending = ir.Constant(ir.VectorType(count.type, self._lanes), list(range(self._lanes)))
        return self._builder.icmp_signed("<", ascending, self.spread(count))

    def load(self, pointer, mask=None):
        """What lies from a number on, zeros where the mask is not set."""
        place = self._builder.bitcast(pointer, self._pointer)
        if mask is None:
            loaded = self._builder.load(place)
            loaded.align = self._align
            return loaded
        bits = ir.IntType(32)
        kind = ir.FunctionType(self.kind, [self._pointer, bits, mask.type, self.kind])
        return self.call(
            f"llvm.masked.load.{self._suffix}", kind, place, bits(self._align), mask, self.zeros
        )

    def store(self, value, pointer, mask=None):
        place = self._builder.bitcast(pointer, self._pointer)
        if mask is None:
            self._builder.store(value, place).align = self._align
            return
        bits = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [self.kind, self._pointer, bits, mask.type])
        name = f"llvm.masked.store.{self._suffix}"
        self.call(name, kind, value, place, bits(self._align), mask)

    def call(self, name, kind, *arguments):
        function = cgutils.get_or_insert_function(self._builder.module, kind, name)
        return self._builder.call(function, arguments)


def _loop_over(builder, stop, step, begun):
    """A loop of counters 0, step, ... below `stop`, whose body changes the values `begun`.

    A generator: gives the counter and the values, is sent those for the next round, and at last
    gives the values after the loop, where the builder then is.
    """
    before = builder.block
    loop = builder.append_basic_block("loop")
    after = builder.append_basic_block("after_loop")
    builder.cbranch(builder.icmp_signed(">", stop, stop.type(0)), loop, after)
    builder.position_at_end(loop)
    counter = builder.phi(stop.type)
    values = [builder.phi(value.type) for value in begun]
    counter.add_incoming(stop.type(0), before)
    changed = yield counter, values
    following = builder.add(counter, stop.type(step))
    last = builder.block
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
    counter.add_incoming(following, last)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in begun]
    for value, start, new, result in zip(values, begun, changed, results, strict=True):
        value.add_incoming(start, before)
        value.add_incoming(new, last)
        result.add_incoming(start, before)
        result.add_incoming(new, last)
    yield results


_FUSED = {"flags": ("contract",)}


# What follows takes pointers to numbers, not arrays: making an array of a row, and counting who
# refers to it, took longer than adding up some rows.


@intrinsic
def _at(typing_context, place, index):
    """A pointer: to an element of an array that is contiguous, or as many elements further on."""

    def generate(context, builder, signature, arguments):
        start, index = arguments
        if isinstance(place, types.Array):
            start = context.make_array(place)(context, builder, start).data
        return builder.gep(start, [index])

    return types.CPointer(place.dtype)(place, types.intp), generate


def _add_rows_block(lanes, masked):
    """A function that keeps `lanes` sums in registers, which Numba can't be told to.

    sums (n,) = start (n,) + sum over k < count of values[k] * matrix[indices[k], :n], n being
    `lanes`, or at most that if `masked`, and the matrix's rows `stride` numbers apart. As a loop
    over sums, which loads and stores each of them for a few products, it took twice as long.
    """

    @intrinsic
    def add_rows_block(typing_context, sums, start, matrix, stride, indices, values, count, n):
        def generate(context, builder, signature, arguments):
            sums, start, matrix, stride, indices, values, count, n = arguments
            vectors = _Vectors(builder, context.get_data_type(signature.args[0].dtype), lanes)
            mask = vectors.first(n) if masked else None
            loop = _loop_over(builder, count, 1, [vectors.load(start, mask)])
            k, (sum_,) = next(loop)
            index = builder.sext(builder.load(builder.gep(indices, [k])), k.type)
            value = vectors.spread(builder.load(builder.gep(values, [k])))
            row = vectors.load(builder.gep(matrix, [builder.mul(index, stride)]), mask)
            product = builder.fmul(value, row, **_FUSED)
            (result,) = loop.send([builder.fadd(sum_, product, **_FUSED)])
            vectors.store(result, sums, mask)
            return context.get_dummy_value()

        words = types.intp, types.intp
        return types.void(sums, start, matrix, types.intp, indices, values, *words), generate

    return add_rows_block


_add_rows_wide = _add_rows_block(_WIDE, masked=False)
_add_rows_narrow = _add_rows_block(_NARROW, masked=True)


def _list_block(strided):
    """`_list_nonzeros` in single precision, where the CPU has AVX-512."""

    @intrinsic
    def list_block(typing_context, row, stride, n, indices, values):
        def generate(context, builder, signature, arguments):
            row, stride, n, indices, values = arguments
            bits = ir.IntType(32)
            reals = _Vectors(builder, ir.FloatType(), _NARROW)
            integers = _Vectors(builder, bits, _NARROW)
            ascending = ir.Constant(integers.kind, list(range(_NARROW)))
            apart = builder.mul(ascending, integers.spread(builder.trunc(stride, bits)))
            loop = _loop_over(builder, n, _NARROW, [n.type(0)])
            i, (count,) = next(loop)
            mask = reals.first(builder.sub(n, i))
            place = builder.gep(row, [builder.mul(i, stride)])
            if strided:
                place = builder.bitcast(place, context.get_value_type(types.voidptr))
                given = [reals.kind, place.type, integers.kind, mask.type, bits]
                numbers = reals.call(
                    "llvm.x86.avx512.mask.gather.dps.512",
                    ir.FunctionType(reals.kind, given),
                    *(reals.zeros, place, apart, mask, bits(4)),
                )
            else:
                numbers = reals.load(place, mask)
            nonzero = builder.fcmp_unordered("!=", numbers, reals.zeros)
            positions = builder.add(ascending, integers.spread(builder.trunc(i, bits)))
            for vectors, listed, list_ in (
                (reals, numbers, values),
                (integers, positions, indices),
            ):
                kind = ir.FunctionType(vectors.kind, [vectors.kind, vectors.kind, mask.type])
                name = f"llvm.x86.avx512.mask.compress.v{_NARROW}{vectors.letter}32"
                packed = vectors.call(name, kind, listed, vectors.zeros, nonzero)
                vectors.store(packed, builder.gep(list_, [count]))
            found = builder.ctpop(builder.bitcast(nonzero, ir.IntType(_NARROW)))
            (result,) = loop.send([builder.add(count, builder.zext(found, n.type))])
            return result

        return types.intp(row, types.intp, types.intp, indices, values), generate

    return list_block


_list_contiguous = _list_block(strided=False)
_list_strided = _list_block(strided=True)


@intrinsic
def _four_dots(typing_context, vector, p, q, r, s, n):
    """The products of a vector (n,) with four others."""

    def generate(context, builder, signature, arguments):
        vector, *others, n = arguments
        real = context.get_data_type(signature.args[0].dtype)
        vectors = _Vectors(builder, real, _NARROW)
        loop = _loop_over(builder, n, _NARROW, [vectors.zeros] * 4)
        i, sums = next(loop)
        mask = vectors.first(builder.sub(n, i))
        factor = vectors.load(builder.gep(vector, [i]), mask)
        rows = [vectors.load(builder.gep(other, [i]), mask) for other in others]
        products = [builder.fmul(factor, row, **_FUSED) for row in rows]
        sums = loop.send(
            [
                builder.fadd(sum_, product, **_FUSED)
                for sum_, product in zip(sums, products, strict=True)
            ]
        )
        name = f"llvm.vector.reduce.fadd.v{_NARROW}f{64 if isinstance(real, ir.DoubleType) else 32}"
        kind = ir.FunctionType(real, [real, vectors.kind])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zero = ir.Constant(real, -0.0)
        dots = [builder.call(function, [zero, sum_], fastmath=("reassoc",)) for sum_ in sums]
        return context.make_tuple(builder, signature.return_type, dots)

    return types.UniTuple(vector.dtype, 4)(vector, p, q, r, s, types.intp), generate


@intrinsic
def _adam_vectors(typing_context, w, g, m, v, rate, share_1, share_2, epsilon, shrink, n):
    """Adam's update of n numbers in single precision, where the CPU has AVX-512.

    Root and quotient by approximations to 14 bits and a Newton step each, good to 2 ulp: the exact
    instructions take as long as all the rest.
    """

    def generate(context, builder, signature, arguments):
        *pointers, rate, share_1, share_2, epsilon, shrink, n = arguments
        vectors = _Vectors(builder, ir.FloatType(), _NARROW)
        rate, share_1, share_2, epsilon, shrink = map(
            vectors.spread, (rate, share_1, share_2, epsilon, shrink)
        )
        kind, short = vectors.kind, ir.IntType(16)
        approximate = ir.FunctionType(kind, [kind, kind, short])

        def constant(value):
            return ir.Constant(kind, [value] * _NARROW)

        def multiply(a, b):
            return builder.fmul(a, b, **_FUSED)

        def add(a, b):
            return builder.fadd(a, b, **_FUSED)

        def subtract(a, b):
            return builder.fsub(a, b, **_FUSED)

        def guess(name, x):
            name = f"llvm.x86.avx512.{name}14.ps.512"
            return vectors.call(name, approximate, x, vectors.zeros, short(-1))

        def update(i, mask):
            w, g, m, v = (builder.gep(pointer, [i]) for pointer in pointers)
            gradient, first, second = (vectors.load(each, mask) for each in (g, m, v))
            first = add(first, multiply(subtract(gradient, first), share_1))
            second = add(second, multiply(subtract(multiply(gradient, gradient), second), share_2))
            vectors.store(first, m, mask)
            vectors.store(second, v, mask)
            inverse_root = guess("rsqrt", second)
            root = multiply(second, inverse_root)
            error = subtract(second, multiply(root, root))
            better = add(root, multiply(error, multiply(inverse_root, constant(0.5))))
            # Of 0 the inverse root is infinite, and the product with that not a number.
            positive = builder.fcmp_unordered("!=", second, vectors.zeros)
            root = builder.select(positive, better, vectors.zeros)
            divisor = add(root, epsilon)
            inverse = guess("rcp", divisor)
            inverse = multiply(inverse, subtract(constant(2.0), multiply(divisor, inverse)))
            step = multiply(multiply(rate, first), inverse)
            before = vectors.load(w, mask)
            kept = subtract(before, multiply(before, shrink))
            vectors.store(subtract(kept, step), w, mask)

        whole = builder.and_(n, n.type(-_NARROW))
        loop = _loop_over(builder, whole, _NARROW, [])
        i, _ = next(loop)
        update(i, None)
        loop.send([])
        rest = builder.sub(n, whole)
        loop = _loop_over(builder, rest, _NARROW, [])
        next(loop)
        update(whole, vectors.first(rest))
        loop.send([])
        return context.get_dummy_value()

    numbers = (types.float32,) * 5
    return types.void(w, g, m, v, *numbers, types.intp), generate


@intrinsic
def _pointer(typing_context, address):
    """The pointer with this value."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@intrinsic
def _call(typing_context, function, a, b, c, d, m, n):
    """Call the function at an address with four more addresses and two integers."""

    def generate(context, builder, signature, arguments):
        pointer, word = context.get_value_type(types.voidptr), arguments[-1].type
        kind = ir.FunctionType(ir.DoubleType(), [pointer] * 4 + [word] * 2)
        called = builder.inttoptr(arguments[0], kind.as_pointer())
        addresses = [builder.inttoptr(address, pointer) for address in arguments[1:5]]
        return builder.call(called, [*addresses, *arguments[5:]])

    return types.float64(*[types.intp] * 7), generate


# Bits of the x86 control word that make subnormal numbers count as zero. The moments of inputs that
# are rarely there decay to such numbers, which take a hundred times as long.
_FLUSH = 0x8040
_X86 = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")


@intrinsic
def _exchange_float_mode(typing_context, added, mode):
    """Set the control word to `mode`, or to itself and `added`; returns the one before."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        if not _X86:
            return word(0)
        pointer = context.get_value_type(types.voidptr)
        kind = ir.FunctionType(ir.VoidType(), [pointer])
        get = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.stmxcsr")
        put = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.ldmxcsr")
        place = cgutils.alloca_once(builder, word)
        builder.call(get, [builder.bitcast(place, pointer)])
        before = builder.load(place)
        added, mode = arguments
        kept = builder.icmp_signed("!=", added, word(0))
        builder.store(builder.select(kept, builder.or_(before, added), mode), place)
        builder.call(put, [builder.bitcast(place, pointer)])
        return before

    return types.int32(types.int32, types.int32), generate


# ------------------------------------------------------------------------- what a call is given


class _Plan(NamedTuple):
    """What the steps of a call have in common.

    Data is named by addresses, of arrays that the caller keeps: read-only ones, and absent ones
    (0), would otherwise each need an engine of their own.
    """

    sizes: np.ndarray
    codes: np.ndarray
    slopes: np.ndarray
    dropout: np.ndarray
    loss: int
    from_logits: bool
    loss_parameter: float
    l1: float
    l2: float
    seed: np.uint64
    rule: int
    momentum: float
    beta_2: float
    epsilon: float
    weight_decay: float
    clipvalue: float
    clipnorm: float
    global_clipnorm: float
    parameters: np.ndarray
    slots: np.ndarray  # addresses
    gradients: np.ndarray  # (p,), or (0,) where nothing is clipped
    inputs: int
    starts: int
    columns: int
    values: int
    targets: int
    labels: int
    sample_weight: int
    order: int
    rows: int
    batch: int
    forward: np.ndarray  # addresses, for each layer, 0 for an activation that is built in
    backward: np.ndarray
    loss_function: int
    update_function: int


class _Scratch(NamedTuple):
    offsets: np.ndarray  # (L,) of each layer's weights in the flat arrays
    places: np.ndarray  # (L,) of each layer's rows in the next five
    preactivated: np.ndarray
    activated: np.ndarray
    factors: np.ndarray  # of dropout
    dropped: np.ndarray
    gradients: np.ndarray
    inputs: np.ndarray  # (batch, I), dense data only
    targets: np.ndarray  # (batch, O)
    labels: np.ndarray  # (batch,)
    sample_weight: np.ndarray  # (batch,)
    order: np.ndarray  # (batch,)
    counts: np.ndarray  # (rows,) how many elements the lists of these rows have
    indices: np.ndarray  # (rows, widest)
    values: np.ndarray
    column_counts: np.ndarray  # (I,) the same for the columns of sparse data
    column_indices: np.ndarray  # (I, batch)
    column_values: np.ndarray
    tile: np.ndarray
    zeros: np.ndarray  # (widest,)
    words: np.ndarray  # (4, widest)
    numbers: np.ndarray  # of the update: rate, step, decayed share, Adam's rate


@_compile
def _prepare(plan):
    layers, real = plan.codes.size, plan.parameters.dtype
    offsets, places = np.empty(layers, np.int64), np.empty(layers, np.int64)
    offset = place = 0
    for layer in range(layers):
        inputs, outputs = plan.sizes[layer], plan.sizes[layer + 1]
        offsets[layer], places[layer] = offset, place
        offset += (inputs + 1) * outputs
        place += plan.batch * outputs
    widest = plan.sizes.max()
    features, outputs = plan.sizes[0], plan.sizes[layers]
    sparse = plan.inputs == 0
    listed = min(plan.batch, _LISTED_ROWS)
    longest = max(widest, _TILE_BATCH) + _ROOM
    column_length = plan.batch if sparse else 0
    return _Scratch(
        offsets,
        places,
        np.empty(place, real),
        np.empty(place, real),
        np.empty(place, real),
        np.empty(place, real),
        np.empty(place, real),
        np.empty((0 if sparse else plan.batch, features), real),
        np.empty((plan.batch, outputs), real),
        np.empty(plan.batch, np.int64),
        np.ones(plan.batch, real),
        np.empty(plan.batch, np.int64),
        np.empty(listed, np.int64),
        np.empty((listed, longest), np.int32),
        np.empty((listed, longest), real),
        np.empty(features, np.int64),
        np.empty((features, column_length), np.int32),
        np.empty((features, column_length), real),
        np.empty(max(widest, _TILE), real),
        np.zeros(widest, real),
        np.empty((4, widest), np.uint64),
        np.empty(4, np.float64),
    )


@_compile
def _part(plan, scratch, array, layer, rows):
    """A layer's rows (rows, outputs) in one of the scratch's arrays."""
    outputs, place = plan.sizes[layer + 1], scratch.places[layer]
    return array[place : place + rows * outputs].reshape(rows, outputs)


@_compile
def _weights(plan, scratch, layer):
    inputs, outputs, offset = plan.sizes[layer], plan.sizes[layer + 1], scratch.offsets[layer]
    return plan.parameters[offset : offset + inputs * outputs].reshape(inputs, outputs)


@_compile
def _fed(plan, scratch, layer, rows):
    """What a layer is fed (rows, inputs): the batch, or the layer below."""
    if layer == 0:
        return scratch.inputs[:rows]
    below = layer - 1
    kept = scratch.dropped if plan.dropout[below] > 0 else scratch.activated
    return _part(plan, scratch, kept, below, rows)


@_compile
def _gather(plan, scratch, start, rows):
    """The batch's rows of the data, which `order` names."""
    real, features, outputs = plan.parameters.dtype, plan.sizes[0], plan.sizes[-1]
    order = numba.carray(_pointer(plan.order), plan.rows, np.int64)
    for b in range(rows):
        scratch.order[b] = order[start + b] if plan.order else start + b
    if plan.inputs:
        inputs = numba.carray(_pointer(plan.inputs), (plan.rows, features), real)
        for b in range(rows):
            source, target = inputs[scratch.order[b]], scratch.inputs[b]
            for i in range(features):
                target[i] = source[i]
    if plan.loss == _SPARSE:
        labels = numba.carray(_pointer(plan.targets), plan.rows, np.int64)
        for b in range(rows):
            scratch.labels[b] = labels[scratch.order[b]]
    else:
        targets = numba.carray(_pointer(plan.targets), (plan.rows, outputs), real)
        for b in range(rows):
            scratch.targets[b] = targets[scratch.order[b]]
    if plan.sample_weight:
        weights = numba.carray(_pointer(plan.sample_weight), plan.rows, real)
        for b in range(rows):
            scratch.sample_weight[b] = weights[scratch.order[b]]


# -------------------------------------------------------------------------------- sums of rows


@_compile
def _add_rows(sums, start, matrix, stride, indices, values, count, n):
    """sums (n,) = start (n,) + values[:count] @ matrix[indices[:count], :n]."""
    j = 0
    while j + _WIDE <= n:
        _add_rows_wide(
            _at(sums, j), _at(start, j), _at(matrix, j), stride, indices, values, count, n - j
        )
        j += _WIDE
    while j < n:
        _add_rows_narrow(
            _at(sums, j), _at(start, j), _at(matrix, j), stride, indices, values, count, n - j
        )
        j += _NARROW


def _list_nonzeros(row, stride, n, indices, values):
    """Write where n numbers, `stride` apart, are not 0, and what they are; returns how many.

    Up to `_ROOM` numbers behind the list are overwritten.
    """


@overload(_list_nonzeros)
def _choose_list_nonzeros(row, stride, n, indices, values):
    if _AVX512 and row.dtype == types.float32:

        def list_nonzeros(row, stride, n, indices, values):
            if stride == 1:
                return _list_contiguous(row, stride, n, indices, values)
            return _list_strided(row, stride, n, indices, values)

    else:

        def list_nonzeros(row, stride, n, indices, values):
            count = 0
            for i in range(n):
                value = row[i * stride]
                indices[count] = i
                values[count] = value
                count += 1 if value != 0 else 0
            return count

    return list_nonzeros


@_compile
def _scale_by_dots(scales, vector, matrix, indices, count, n):
    """scales[i] *= matrix[i] @ vector for i in indices[:count]; rows (n,)."""
    for k in range(0, count, 4):
        left = count - k
        p = indices[k]
        q = indices[k + 1] if left > 1 else p
        r = indices[k + 2] if left > 2 else p
        s = indices[k + 3] if left > 3 else p
        dot_p, dot_q, dot_r, dot_s = _four_dots(
            vector,
            _at(matrix, p * n),
            _at(matrix, q * n),
            _at(matrix, r * n),
            _at(matrix, s * n),
            n,
        )
        scales[p] *= dot_p
        if left > 1:
            scales[q] *= dot_q
        if left > 2:
            scales[r] *= dot_r
        if left > 3:
            scales[s] *= dot_s


# ------------------------------------------------------------------------------------- forward


@_compile
def _forward(plan, scratch, rows, iteration):
    for layer in range(plan.codes.size):
        _multiply(plan, scratch, layer, rows)
        preactivated = _part(plan, scratch, scratch.preactivated, layer, rows)
        activated = _part(plan, scratch, scratch.activated, layer, rows)
        code = plan.codes[layer]
        if code < CUSTOM:
            activation_forward(preactivated, code, plan.slopes[layer], activated)
        else:
            _call(
                plan.forward[layer],
                preactivated.ctypes.data,
                activated.ctypes.data,
                0,
                0,
                preactivated.size,
                0,
            )
        if plan.dropout[layer] > 0:
            factors = _part(plan, scratch, scratch.factors, layer, rows)
            _dropout_factors(
                plan.dropout[layer], plan.seed, iteration, layer, scratch.words, factors
            )
            x = activated.reshape(-1)
            y = _part(plan, scratch, scratch.dropped, layer, rows).reshape(-1)
            f = factors.reshape(-1)
            for i in range(y.size):
                y[i] = x[i] * f[i]


@_compile
def _multiply(plan, scratch, layer, rows):
    """preactivated = fed @ weights + bias."""
    weights = _weights(plan, scratch, layer)
    inputs, outputs = weights.shape
    bias = scratch.offsets[layer] + weights.size
    preactivated = _at(_part(plan, scratch, scratch.preactivated, layer, rows), 0)
    sparse = layer == 0 and plan.inputs == 0
    if sparse:
        scratch.column_counts[:] = 0
    longest = scratch.indices.shape[1]
    indices, values = _at(scratch.indices, 0), _at(scratch.values, 0)
    fed = _at(_fed(plan, scratch, layer, 0 if sparse else rows), 0)
    biases, matrix = _at(plan.parameters, bias), _at(weights, 0)
    counts = _at(scratch.counts, 0)
    for first in range(0, rows, _LISTED_ROWS):
        listed = min(_LISTED_ROWS, rows - first)
        for b in range(listed):
            row_indices, row_values = _at(indices, b * longest), _at(values, b * longest)
            if sparse:
                counts[b] = _list_sparse(plan, scratch, first + b, row_indices, row_values)
            else:
                row = _at(fed, (first + b) * inputs)
                counts[b] = _list_nonzeros(row, 1, inputs, row_indices, row_values)
        for j in range(0, outputs, _PANEL):
            width = min(_PANEL, outputs - j)
            for b in range(listed):
                _add_rows(
                    _at(preactivated, (first + b) * outputs + j),
                    _at(biases, j),
                    _at(matrix, j),
                    outputs,
                    _at(indices, b * longest),
                    _at(values, b * longest),
                    counts[b],
                    width,
                )


@_compile
def _list_sparse(plan, scratch, b, indices, values):
    """The list of row b of the batch, from sparse data; its elements join their columns' too."""
    starts = numba.carray(_pointer(plan.starts), plan.rows + 1, np.int64)
    start, stop = starts[scratch.order[b]], starts[scratch.order[b] + 1]
    data_columns = _at(numba.carray(_pointer(plan.columns), stop, np.int32), start)
    data_values = _at(numba.carray(_pointer(plan.values), stop, plan.parameters.dtype), start)
    counts, length = _at(scratch.column_counts, 0), scratch.column_indices.shape[1]
    column_indices, column_values = _at(scratch.column_indices, 0), _at(scratch.column_values, 0)
    for k in range(stop - start):
        i, value = data_columns[k], data_values[k]
        indices[k] = i
        values[k] = value
        count = counts[i]
        counts[i] = count + 1
        column_indices[i * length + count] = b
        column_values[i * length + count] = value
    return stop - start


@_compile
def _dropout_factors(rate, seed, step, layer, words, factors):
    """What `dropout` multiplies by."""
    if rate >= 1:
        factors[:] = 0
        return
    rows, units = factors.shape
    zero, scale = factors.dtype.type(0), factors.dtype.type(1 / (1 - rate))
    threshold = np.uint64(math.floor(rate * 65536 + 0.5))
    quarter = np.uint64(0xFFFF)
    for block in range((rows + 7) // 8):
        for o in range(units):
            words[0, o], words[1, o], words[2, o], words[3, o] = _philox(
                o, block, step, layer, seed
            )
        for b in range(8 * block, min(8 * block + 8, rows)):
            numbers, shift, outputs = words[b % 8 // 2], np.uint64(16 * (b % 2)), factors[b]
            for o in range(units):
                outputs[o] = scale if (numbers[o] >> shift) & quarter >= threshold else zero


# ---------------------------------------------------------------------------------------- loss


@_compile
def _loss(plan, scratch, rows):
    """The batch's loss; its gradient goes to that of the last layer."""
    last = plan.codes.size - 1
    outputs = _part(plan, scratch, scratch.activated, last, rows)
    gradients = _part(plan, scratch, scratch.gradients, last, rows)
    targets, weights = scratch.targets[:rows], scratch.sample_weight[:rows]
    parameter = plan.loss_parameter
    if plan.loss == _BINARY:
        loss = binary_crossentropy(
            targets, outputs, weights, plan.from_logits, parameter, gradients
        )
    elif plan.loss == _CATEGORICAL:
        loss = categorical_crossentropy(
            targets, outputs, weights, plan.from_logits, parameter, gradients
        )
    elif plan.loss == _SPARSE:
        loss = sparse_categorical_crossentropy(
            scratch.labels[:rows], outputs, weights, plan.from_logits, parameter, gradients
        )
    elif plan.loss == _SQUARED:
        loss = mean_squared_error(targets, outputs, weights, gradients)
    elif plan.loss == _ABSOLUTE:
        loss = mean_absolute_error(targets, outputs, weights, gradients)
    elif plan.loss == _HUBER:
        loss = huber(targets, outputs, weights, parameter, gradients)
    elif plan.loss == _POISSON:
        loss = poisson(targets, outputs, weights, gradients)
    else:
        loss = _call(
            plan.loss_function,
            targets.ctypes.data,
            outputs.ctypes.data,
            weights.ctypes.data,
            gradients.ctypes.data,
            rows,
            outputs.shape[1],
        )
    if plan.codes[last] != LINEAR:
        _activation_backward(plan, scratch, last, gradients)
    return loss


@_compile
def _activation_backward(plan, scratch, layer, gradients):
    """Gradients (rows, units) in a layer's activations become those in its preactivations."""
    rows = gradients.shape[0]
    preactivated = _part(plan, scratch, scratch.preactivated, layer, rows)
    activated = _part(plan, scratch, scratch.activated, layer, rows)
    code = plan.codes[layer]
    if code < CUSTOM:
        activation_backward(preactivated, activated, gradients, code, plan.slopes[layer], gradients)
    else:
        _call(
            plan.backward[layer],
            preactivated.ctypes.data,
            activated.ctypes.data,
            gradients.ctypes.data,
            gradients.ctypes.data,
            gradients.size,
            0,
        )


@_compile
def _count_right(plan, scratch, rows):
    """How many rows have their largest output at the label, or are on the target's side of 1/2."""
    outputs = _part(plan, scratch, scratch.activated, plan.codes.size - 1, rows)
    if plan.loss == _BINARY:
        right = 0
        threshold = 0.0 if plan.from_logits else 0.5
        for b in range(rows):
            for o in range(outputs.shape[1]):
                right += (outputs[b, o] > threshold) == scratch.targets[b, o]
        return right / outputs.shape[1]
    if plan.labels == 0:
        return 0.0
    labels = numba.carray(_pointer(plan.labels), plan.rows, np.int64)
    right = 0
    for b in range(rows):
        right += outputs[b].argmax() == labels[scratch.order[b]]
    return float(right)


# ------------------------------------------------------------------------------------ backward


@_compile
def _backward(plan, scratch, rows):
    """Update all layers, the last one first; returns the penalties before that."""
    penalties = 0.0
    for layer in range(plan.codes.size - 1, -1, -1):
        if layer > 0:
            _backward_below(plan, scratch, layer, rows)
        penalties += _update_weights(plan, scratch, layer, rows)
        bias = scratch.offsets[layer] + plan.sizes[layer] * plan.sizes[layer + 1]
        gradients = _part(plan, scratch, scratch.gradients, layer, rows)
        sums = scratch.tile[: gradients.shape[1]]
        sums[:] = 0
        for b in range(rows):
            for o in range(sums.size):
                sums[o] += gradients[b, o]
        _use(plan, scratch, bias, sums)
    return penalties


@_compile
def _backward_below(plan, scratch, layer, rows):
    """Gradients in the preactivations of the layer below."""
    below, code = layer - 1, plan.codes[layer - 1]
    weights = _weights(plan, scratch, layer)
    gradients = _part(plan, scratch, scratch.gradients, layer, rows)
    results = _part(plan, scratch, scratch.gradients, below, rows)
    # First what each will be multiplied by: where that is zero, the product needn't be worked out.
    if plan.dropout[below] > 0:
        results[:] = _part(plan, scratch, scratch.factors, below, rows)
    else:
        results[:] = 1
    whole_rows = code in (SOFTMAX, LOG_SOFTMAX)
    if not whole_rows and code != LINEAR:
        _activation_backward(plan, scratch, below, results)
    inputs, outputs = weights.shape
    indices, values = _at(scratch.indices, 0), _at(scratch.values, 0)
    for first in range(0, inputs, _DOT_ROWS):
        part = min(_DOT_ROWS, inputs - first)
        for b in range(rows):
            scales = _at(results, b * inputs + first)
            count = _list_nonzeros(scales, 1, part, indices, values)
            _scale_by_dots(
                scales,
                _at(gradients, b * outputs),
                _at(weights, first * outputs),
                indices,
                count,
                outputs,
            )
    if whole_rows:
        _activation_backward(plan, scratch, below, results)


@_compile
def _update_weights(plan, scratch, layer, rows):
    """Update a layer's weights, tile by tile, from what it was fed; returns their penalty."""
    weights = _weights(plan, scratch, layer)
    inputs, outputs = weights.shape
    gradients = _part(plan, scratch, scratch.gradients, layer, rows)
    sparse = layer == 0 and plan.inputs == 0
    fed = _at(_fed(plan, scratch, layer, 0 if sparse else rows), 0)
    indices, values = _at(scratch.indices, 0), _at(scratch.values, 0)
    column_length, counts = scratch.column_indices.shape[1], _at(scratch.column_counts, 0)
    column_indices, column_values = _at(scratch.column_indices, 0), _at(scratch.column_values, 0)
    matrix, zeros, sums = _at(gradients, 0), _at(scratch.zeros, 0), _at(scratch.tile, 0)
    penalty = 0.0
    height = max(1, _TILE // outputs)
    for first in range(0, inputs, height):
        stop = min(first + height, inputs)
        for i in range(first, stop):
            row = _at(sums, (i - first) * outputs)
            if sparse:
                _add_rows(
                    row,
                    zeros,
                    matrix,
                    outputs,
                    _at(column_indices, i * column_length),
                    _at(column_values, i * column_length),
                    counts[i],
                    outputs,
                )
                continue
            for b in range(0, rows, _TILE_BATCH):
                column, part = _at(fed, b * inputs + i), min(_TILE_BATCH, rows - b)
                count = _list_nonzeros(column, inputs, part, indices, values)
                before, rows_there = row if b else zeros, _at(matrix, b * outputs)
                _add_rows(row, before, rows_there, outputs, indices, values, count, outputs)
        tile = scratch.tile[: (stop - first) * outputs]
        if plan.l1 != 0 or plan.l2 != 0:
            penalty += add_penalty(weights[first:stop].reshape(-1), plan.l1, plan.l2, tile)
        _use(plan, scratch, scratch.offsets[layer] + first * outputs, tile)
    return penalty


# -------------------------------------------------------------------------------------- update


@_compile
def _use(plan, scratch, start, gradients):
    """The gradient of the parameters from `start` on: to the optimizer, or kept for clipping."""
    if plan.gradients.size:
        plan.gradients[start : start + gradients.size] = gradients
    else:
        _update(plan, scratch, start, gradients)


@_compile
def _update(plan, scratch, start, gradients):
    stop = start + gradients.size
    parameters, numbers = plan.parameters[start:stop], scratch.numbers
    rate, weight_decay = numbers[0], plan.weight_decay
    if plan.rule == _ADAM:
        _adam(
            parameters,
            gradients,
            _slot(plan, 0, start, stop),
            _slot(plan, 1, start, stop),
            numbers[3],
            plan.momentum,
            plan.beta_2,
            plan.epsilon,
            numbers[2],
        )
    elif plan.rule == _RMSPROP:
        slot = _slot(plan, 0, start, stop)
        rmsprop_update(parameters, gradients, slot, rate, plan.momentum, plan.epsilon, weight_decay)
    elif plan.rule == _SGD:
        sgd_update(parameters, gradients, None, rate, 0.0, False, weight_decay)
    elif plan.rule in (_MOMENTUM, _NESTEROV):
        slot, nesterov = _slot(plan, 0, start, stop), plan.rule == _NESTEROV
        sgd_update(parameters, gradients, slot, rate, plan.momentum, nesterov, weight_decay)
    else:
        _call(
            plan.update_function,
            plan.parameters.ctypes.data,
            gradients.ctypes.data,
            plan.slots.ctypes.data,
            numbers.ctypes.data,
            start,
            stop,
        )


def _adam(w, g, m, v, rate, beta_1, beta_2, epsilon, shrink):
    """Adam's update of flat arrays."""


@overload(_adam)
def _choose_adam(w, g, m, v, rate, beta_1, beta_2, epsilon, shrink):
    if not (_AVX512 and w.dtype == types.float32):
        return _adam_steps.py_func

    def adam(w, g, m, v, rate, beta_1, beta_2, epsilon, shrink):
        real = np.float32
        _adam_vectors(
            _at(w, 0),
            _at(g, 0),
            _at(m, 0),
            _at(v, 0),
            real(rate),
            real(1 - beta_1),
            real(1 - beta_2),
            real(epsilon),
            real(shrink),
            w.size,
        )

    return adam


@_compile
def _slot(plan, number, start, stop):
    address, dtype = plan.slots[number], plan.parameters.dtype
    return numba.carray(_pointer(address), stop, dtype)[start:]


@_compile
def _clip(plan, scratch):
    gradients = plan.gradients
    if plan.clipvalue < math.inf:
        limit = gradients.dtype.type(plan.clipvalue)
        for i in range(gradients.size):
            gradients[i] = min(max(gradients[i], -limit), limit)
    elif plan.global_clipnorm < math.inf:
        _limit_norm(gradients, plan.global_clipnorm)
    else:
        for layer in range(plan.codes.size):
            start = scratch.offsets[layer]
            bias = start + plan.sizes[layer] * plan.sizes[layer + 1]
            _limit_norm(gradients[start:bias], plan.clipnorm)
            _limit_norm(gradients[bias : bias + plan.sizes[layer + 1]], plan.clipnorm)


@_compile_sums
def _limit_norm(gradients, limit):
    squares = 0.0
    for i in range(gradients.size):
        squares += float(gradients[i]) * float(gradients[i])
    norm = math.sqrt(squares)
    if norm > limit:
        scale = gradients.dtype.type(limit / norm)
        for i in range(gradients.size):
            gradients[i] *= scale


# ------------------------------------------------------------------------------------ the call


@_compile_entrance
def _train(plan, iteration, updates, epoch, first, rates, totals):
    """Take one step for each of the learning rates, from step `first` of an epoch on."""
    scratch = _prepare(plan)
    mode = _exchange_float_mode(_FLUSH, 0)
    steps = (plan.rows + plan.batch - 1) // plan.batch
    for taken in range(rates.size):
        passed, step = divmod(first + taken, steps)
        if step == 0 and plan.order:
            order = numba.carray(_pointer(plan.order), plan.rows, np.int64)
            _permutation(plan.seed, epoch + passed, order)
        start = step * plan.batch
        rows = min(plan.batch, plan.rows - start)
        rate, count = rates[taken], updates + taken + 1
        scratch.numbers[0], scratch.numbers[1] = rate, count
        scratch.numbers[2] = rate * plan.weight_decay
        if plan.rule == _ADAM:
            correction = math.sqrt(1 - plan.beta_2**count) / (1 - plan.momentum**count)
            scratch.numbers[3] = rate * correction
        _gather(plan, scratch, start, rows)
        _forward(plan, scratch, rows, iteration + taken)
        loss = _loss(plan, scratch, rows)
        loss += _backward(plan, scratch, rows)
        if plan.gradients.size:
            _clip(plan, scratch)
            _update(plan, scratch, 0, plan.gradients)
        totals[passed, 0] += loss * rows
        totals[passed, 1] += _count_right(plan, scratch, rows)
        totals[passed, 2] += rows
    _exchange_float_mode(0, mode)


def train_steps(
    sizes,
    activations,
    slopes,
    dropout,
    loss,
    from_logits,
    loss_parameter,
    l1,
    l2,
    seed,
    iteration,
    update,
    momentum,
    beta_2,
    epsilon,
    weight_decay,
    clipvalue,
    clipnorm,
    global_clipnorm,
    updates,
    parameters,
    first_slot,
    second_slot,
    gradients,
    inputs,
    sparse,
    targets,
    labels,
    sample_weight,
    order,
    epoch,
    batch_size,
    first,
    rates,
    totals,
    limit,
    threads,
    functions=None,
    slots=None,
):
    """Take steps of one epoch or more until they, or `limit` seconds, are over; return how many.

    As the compiled engine's, on one thread. `functions` are those that users wrote, compiled: as
    `activations`, one for each layer or None, `loss` and `update`; `slots` then are all there are.
    Where one of them raises an exception, parameters and slots are as before the call.
    """
    starts, columns, values = sparse[:3] if sparse else (None,) * 3
    if slots is None:
        slots = [slot for slot in (first_slot, second_slot) if slot is not None]
    own = (
        [function and function.addresses for function in functions.activations] if functions else []
    )
    loops = np.array(
        [addresses or (0, 0) for addresses in own or [None] * len(activations)], np.int64
    )
    plan = _Plan(
        sizes,
        activations,
        slopes,
        dropout,
        LOSSES.index(loss),
        bool(from_logits),
        float(loss_parameter),
        float(l1),
        float(l2),
        np.uint64(seed),
        UPDATES.index(update),
        float(momentum),
        float(beta_2),
        float(epsilon),
        float(weight_decay),
        float(clipvalue),
        float(clipnorm),
        float(global_clipnorm),
        parameters,
        np.array([slot.ctypes.data for slot in slots], np.int64),
        np.empty(0, parameters.dtype) if gradients is None else gradients,
        *(
            0 if array is None else array.ctypes.data
            for array in (inputs, starts, columns, values, targets, labels, sample_weight, order)
        ),
        len(targets),
        min(batch_size, len(targets)),
        loops[:, 0].copy(),
        loops[:, 1].copy(),
        functions.loss.address if functions and functions.loss else 0,
        functions.update.address if functions and functions.update else 0,
    )
    kept = [(array, array.copy()) for array in (parameters, *slots)] if functions else []
    # Numba has no clock: calls of more and more steps, until the last one took a good part of the
    # time, or the next one would go beyond it.
    begun = time.perf_counter()
    taken, steps = 0, 1
    while True:
        steps = min(steps, len(rates) - taken)
        call_begun = time.perf_counter()
        _train(
            plan,
            iteration + taken,
            updates + taken,
            epoch,
            first + taken,
            rates[taken : taken + steps],
            totals,
        )
        if functions:
            try:
                functions.check()
            except RuntimeError:
                for array, before in kept:
                    array[...] = before
                raise
        taken += steps
        now = time.perf_counter()
        left = limit - (now - begun)
        steps = int(min(2 * steps, steps * left / max(now - call_begun, 1e-9)))
        if taken == len(rates) or steps < 1:
            return taken


# ----------------------------------------------------------------------------- users' functions

# Of all compiled loops: four addresses and two integers.
_SIGNATURE = types.float64(*[types.voidptr] * 4, types.intp, types.intp)


def _in_dtype(function, real, integers=True):
    """A function whose numeric constants have the type `real`, in its code and around it.

    Numba would compute whatever they meet in float64, at half the speed.
    """
    kinds = (float, int) if integers else (float,)

    def converted(value):
        return real(value) if type(value) in kinds else value

    def all_converted(values):
        return tuple(converted(value) for value in values)

    code, defaults = function.__code__, function.__defaults__ or ()
    if function.__kwdefaults__ and not code.co_flags & inspect.CO_VARARGS:
        # Numba can't leave out what has to be given by name: parameters like the others.
        count = code.co_argcount + code.co_kwonlyargcount
        names = code.co_varnames[code.co_argcount : count]
        defaults += tuple(function.__kwdefaults__[name] for name in names)
        code = code.replace(co_argcount=count, co_kwonlyargcount=0)
    cells = all_converted(cell.cell_contents for cell in function.__closure__ or ())
    return python_types.FunctionType(
        code.replace(co_consts=all_converted(code.co_consts)),
        {name: converted(value) for name, value in function.__globals__.items()},
        function.__name__,
        all_converted(defaults),
        tuple(python_types.CellType(value) for value in cells),
    )


def _plain_function(function):
    """The Python function that Numba's decorators were applied to, or one that calls the object."""
    function = getattr(function, "py_func", function)
    if isinstance(function, python_types.FunctionType):
        return function
    return lambda *numbers: function(*numbers)


def _scalar_function(name, function, real, parameters, results=1):
    """A user's function of numbers, compiled for `parameters` of them.

    It has to return a number, or a tuple of more than one.
    """
    label, function = getattr(function, "__name__", repr(function)), _plain_function(function)
    numbers = (numba.from_dtype(np.dtype(real)),) * parameters
    for integers in (True, False):  # without, where one is an index or a loop's length
        try:
            scalar = numba.njit(error_model="numpy", fastmath={"contract"})(
                _in_dtype(function, real, integers)
            )
            scalar.get_call_template(numbers, {})  # as a call would, which may leave out defaults
        except Exception as error:  # not all that its compiler raises are NumbaErrors
            reason = error
        else:
            break
    else:
        raise TypeError(f"{name}: Numba can't compile {label}: {reason}") from reason
    returned = scalar.nopython_signatures[0].return_type
    several = isinstance(returned, types.BaseTuple)
    each = tuple(returned) if several else (returned,)
    real_numbers = (types.Boolean, types.Integer, types.Float)
    if (
        several != (results > 1)
        or len(each) != results
        or not all(isinstance(kind, real_numbers) for kind in each)
    ):
        rule = f"a tuple of {results} numbers" if results > 1 else "a number"
        raise TypeError(f"{name}: {label} returns {returned}, not {rule}")
    return scalar


class _Loop:
    """A loop over arrays that Numba compiled: has an `address`, and is called with addresses.

    No exception leaves a function that is called by its address: the loop ends and notes it, and
    `check` raises what Python is to see.
    """

    def __init__(self, name, run):
        self._name, self._failed = name, np.zeros(1, np.int64)
        failed = self._failed.ctypes.data
        run = numba.njit(error_model="numpy", fastmath={"contract"})(run)

        def guarded(a, b, c, d, m, n):
            result = 0.0
            try:
                result = run(a, b, c, d, m, n)
            except Exception:
                numba.carray(_pointer(failed), 1, np.int64)[0] = 1
            return result

        self._compiled = numba.cfunc(_SIGNATURE)(guarded)
        self.address = self._compiled.address

    def __call__(self, *arguments):
        result = self._compiled.ctypes(*arguments)
        self.check()
        return result

    def check(self):
        """Raise RuntimeError if a function has raised an exception since the last check."""
        if self._failed[0]:
            self._failed[0] = 0
            raise RuntimeError(
                f"{self._name}: a function of it raised an exception; on the reference backend "
                "Python shows which"
            )


def _codes(code):
    """A function's code, and that of the functions within."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            yield from _codes(constant)


@functools.lru_cache(maxsize=128)
def _names(function):
    """The global variables and attributes that a function names."""
    return list(dict.fromkeys(name for code in _codes(function.__code__) for name in code.co_names))


def _frozen(value):
    """What equals itself as long as Numba would compile the same of the value."""
    if isinstance(value, (int, float, complex, np.number)):
        return type(value), repr(value)  # 0.0 equals -0.0, and NaN not even itself
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(_frozen(each) for each in value)
    return id(value) if type(value).__hash__ is None else value


def _outside(function):
    """The variables around a user's function that it reads, whose values Numba compiles into it."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, python_types.FunctionType):
        return ()
    names = _names(function)
    found = [function.__globals__.get(name) for name in names]
    for module in [value for value in found if isinstance(value, python_types.ModuleType)]:
        found += [vars(module).get(name) for name in names]
    found += [cell.cell_contents for cell in function.__closure__ or ()]
    return tuple([_frozen(value) for value in found])


def _once(compiled):
    """Compile once for the same arguments, and the same values of what the functions read."""

    @functools.lru_cache(maxsize=128)
    def keep(outside, *arguments):
        return compiled(*arguments)

    @functools.wraps(compiled)
    def once(*arguments):
        outside = tuple(_outside(each) for each in arguments if callable(each))
        return keep(outside, *arguments)

    return once


# Each of the following compiles a user's functions into a `_Loop` or two over arrays of a dtype.
# They raise TypeError, beginning with `name`, if Numba can't or a function returns something else.


@_once
def compiled_activation(name, forward, derivative, dtype):
    """The loops `forward` and `backward` of an activation."""
    real = dtype.type
    forward = _scalar_function(name, forward, real, 1)
    derivative = _scalar_function(name, derivative, real, 2)

    def run(inputs, outputs, _c, _d, n, _n):
        """outputs (n,) from inputs (n,)."""
        z, a = numba.carray(inputs, n, real), numba.carray(outputs, n, real)
        for i in range(n):
            a[i] = forward(z[i])
        return 0.0

    def run_backward(inputs, outputs, grad_outputs, grad_inputs, n, _n):
        """grad_inputs (n,), which may be grad_outputs."""
        z, a = numba.carray(inputs, n, real), numba.carray(outputs, n, real)
        dy, dx = numba.carray(grad_outputs, n, real), numba.carray(grad_inputs, n, real)
        for i in range(n):
            dx[i] = dy[i] * real(derivative(z[i], a[i]))
        return 0.0

    return _Loop(name, run), _Loop(name, run_backward)


@_once
def compiled_loss(name, value, gradient, dtype):
    """The loop of a loss."""
    real = dtype.type
    value = _scalar_function(name, value, real, 2)
    gradient = _scalar_function(name, gradient, real, 2)

    def run(targets, predictions, sample_weight, gradients, rows, outputs):
        """All (rows, outputs) but sample_weight (rows,); returns the loss."""
        t = numba.carray(targets, (rows, outputs), real)
        p = numba.carray(predictions, (rows, outputs), real)
        g = numba.carray(gradients, (rows, outputs), real)
        weights = numba.carray(sample_weight, rows, real)
        loss = 0.0
        for b in range(rows):
            weight = weights[b] / (rows * outputs)
            scale = real(weight)
            row_loss = 0.0
            for o in range(outputs):
                row_loss += value(t[b, o], p[b, o])
                g[b, o] = real(gradient(t[b, o], p[b, o])) * scale
            loss += row_loss * weight
        return loss

    return _Loop(name, run)


@_once
def compiled_update(name, update, slots, dtype):
    """The loop of an optimizer with so many slots."""
    real = dtype.type
    update = _scalar_function(name, update, real, 4 + slots, 1 + slots)
    arrays, load, store = _slot_access(slots, real)

    def run(parameters, gradients, addresses, numbers, start, stop):
        """Parameters from start to stop, in place; numbers: rate, step, decayed share."""
        w = numba.carray(parameters, stop, real)[start:]
        g = numba.carray(gradients, stop - start, real)
        settings = numba.carray(numbers, 3, np.float64)
        rate, step, shrink = real(settings[0]), real(settings[1]), real(settings[2])
        kept = arrays(numba.carray(addresses, slots, np.int64), stop)
        for i in range(stop - start):
            decayed = w[i] - w[i] * shrink
            new = update(decayed, g[i], rate, step, *load(kept, start + i))
            w[i] = store(new, kept, start + i)
        return 0.0

    return _Loop(name, run)


def _slot_access(count, real):
    """Functions of `count` slots: their arrays as a tuple, one number of each, and back.

    Numba wants to know each member of a tuple by a constant, hence one function inside the other.
    """
    if count == 0:
        return (
            numba.njit(lambda addresses, stop: ()),
            numba.njit(lambda arrays, i: ()),
            numba.njit(lambda new, arrays, i: new),
        )
    other_arrays, load_others, store_others = _slot_access(count - 1, real)
    last = count - 1

    @numba.njit
    def arrays(addresses, stop):
        array = numba.carray(_pointer(addresses[last]), stop, real)
        return (*other_arrays(addresses, stop), array)

    @numba.njit
    def load(arrays, i):
        return (*load_others(arrays, i), arrays[last][i])

    @numba.njit
    def store(new, arrays, i):
        arrays[last][i] = new[count]
        store_others(new, arrays, i)
        return new[0]

    return arrays, load, store
