"""The compiled kernels: reference.py's operations, on C-contiguous arrays that are known to fit.

Each function unwraps its arrays and calls the C kernel for their precision (`_simd.h`) without the
GIL. Nothing is checked here unless the module was built with FASTDL_DEBUG=1; callers go through
`fastdl.ops`, which checks everything once. See reference.py for what each operation means.
"""

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memset

import numpy as np

cnp.import_array()


cdef extern from *:
    """
    #ifndef FASTDL_CPU_LEVEL
    #define FASTDL_CPU_LEVEL "baseline"
    #endif
    #ifndef FASTDL_DEBUG
    #define FASTDL_DEBUG 0
    #endif
    #ifdef FASTDL_OPTIONS
    /* For setup.py, which looks for it in the file. */
    __attribute__((used)) static const char build_options[] = FASTDL_OPTIONS;
    #endif
    """
    const char* FASTDL_CPU_LEVEL
    bint FASTDL_DEBUG

# `wide` chooses the precision: true for float64. See BY_PRECISION in _simd.h.
cdef extern from "_simd.h" nogil:
    """
    #define map_exp(wide, ...) BY_PRECISION(wide, map_exp, __VA_ARGS__)
    #define map_log(wide, ...) BY_PRECISION(wide, map_log, __VA_ARGS__)
    #define map_log1p(wide, ...) BY_PRECISION(wide, map_log1p, __VA_ARGS__)
    #define map_expm1(wide, ...) BY_PRECISION(wide, map_expm1, __VA_ARGS__)
    #define map_tanh(wide, ...) BY_PRECISION(wide, map_tanh, __VA_ARGS__)
    #define map_sigmoid(wide, ...) BY_PRECISION(wide, map_sigmoid, __VA_ARGS__)
    #define c_activation_forward(wide, ...) BY_PRECISION(wide, activation_forward, __VA_ARGS__)
    #define c_activation_backward(wide, ...) BY_PRECISION(wide, activation_backward, __VA_ARGS__)
    #define c_product(wide, ...) BY_PRECISION(wide, product, __VA_ARGS__)
    #define c_add_bias(wide, ...) BY_PRECISION(wide, add_bias, __VA_ARGS__)
    #define c_column_sums(wide, ...) BY_PRECISION(wide, column_sums, __VA_ARGS__)
    #define c_binary_crossentropy(wide, ...) BY_PRECISION(wide, binary_crossentropy, __VA_ARGS__)
    #define c_categorical_crossentropy(wide, ...) \
        BY_PRECISION(wide, categorical_crossentropy, __VA_ARGS__)
    #define c_sparse_categorical_crossentropy(wide, ...) \
        BY_PRECISION(wide, sparse_categorical_crossentropy, __VA_ARGS__)
    #define c_regression(wide, ...) BY_PRECISION(wide, regression, __VA_ARGS__)
    #define c_dropout(wide, ...) BY_PRECISION(wide, dropout, __VA_ARGS__)
    #define c_update(wide, ...) BY_PRECISION(wide, update, __VA_ARGS__)
    #define c_add_penalty(wide, ...) BY_PRECISION(wide, add_penalty, __VA_ARGS__)
    #define c_quadratic_features(wide, ...) BY_PRECISION(wide, quadratic_features, __VA_ARGS__)
    #define c_logistic_descent(wide, ...) BY_PRECISION(wide, logistic_descent, __VA_ARGS__)
    #define c_planar_descent(wide, ...) BY_PRECISION(wide, planar_descent, __VA_ARGS__)
    #define c_train(wide, ...) BY_PRECISION(wide, train, __VA_ARGS__)
    #define c_infer(wide, ...) BY_PRECISION(wide, infer, __VA_ARGS__)
    #define c_predict_memory(wide, ...) BY_PRECISION(wide, predict_memory, __VA_ARGS__)
    #define c_predict_few(wide, ...) BY_PRECISION(wide, predict_few, __VA_ARGS__)
    #define c_count_nonzeros(wide, ...) BY_PRECISION(wide, count_nonzeros, __VA_ARGS__)
    #define c_take_nonzeros(wide, ...) BY_PRECISION(wide, take_nonzeros, __VA_ARGS__)
    #define c_code_given(wide, ...) BY_PRECISION(wide, code_given, __VA_ARGS__)
    #define c_code_dense(wide, ...) BY_PRECISION(wide, code_dense, __VA_ARGS__)
    """
    enum: SGD, MOMENTUM, NESTEROV, RMSPROP, ADAM
    enum: MEAN_SQUARED_ERROR, MEAN_ABSOLUTE_ERROR, HUBER, POISSON
    int LAST_ACTIVATION "LOG_SOFTMAX"
    int MOST_THREADS
    void map_exp(bint wide, const void*, void*, Py_ssize_t)
    void map_log(bint wide, const void*, void*, Py_ssize_t)
    void map_log1p(bint wide, const void*, void*, Py_ssize_t)
    void map_expm1(bint wide, const void*, void*, Py_ssize_t)
    void map_tanh(bint wide, const void*, void*, Py_ssize_t)
    void map_sigmoid(bint wide, const void*, void*, Py_ssize_t)
    void c_activation_forward(
        bint wide, const void* inputs, int activation, double slope, void* outputs,
        Py_ssize_t rows, Py_ssize_t columns)
    void c_activation_backward(
        bint wide, const void* inputs, const void* outputs, const void* grad_outputs,
        int activation, double slope, void* grad_inputs, Py_ssize_t rows, Py_ssize_t columns)
    void c_product(
        bint wide, Py_ssize_t m, Py_ssize_t n, Py_ssize_t depth,
        const void* a, Py_ssize_t a_row, Py_ssize_t a_column,
        const void* b, Py_ssize_t b_row, Py_ssize_t b_column, const void* bias, void* c)
    void c_add_bias(
        bint wide, void* outputs, const void* bias, Py_ssize_t rows, Py_ssize_t columns)
    void c_column_sums(
        bint wide, const void* inputs, void* sums, Py_ssize_t rows, Py_ssize_t columns)
    double c_binary_crossentropy(
        bint wide, const void* targets, const void* predictions, const void* sample_weight,
        bint from_logits, double label_smoothing, void* gradients, Py_ssize_t rows,
        Py_ssize_t columns, Py_ssize_t count)
    double c_categorical_crossentropy(
        bint wide, const void* targets, const void* predictions, const void* sample_weight,
        bint from_logits, double label_smoothing, void* gradients, Py_ssize_t rows,
        Py_ssize_t columns, Py_ssize_t count)
    double c_sparse_categorical_crossentropy(
        bint wide, const int64_t* targets, const void* predictions, const void* sample_weight,
        bint from_logits, double label_smoothing, void* gradients, Py_ssize_t rows,
        Py_ssize_t columns, Py_ssize_t count)
    double c_regression(
        bint wide, int loss, const void* targets, const void* predictions, const void* sample_weight,
        double parameter, void* gradients, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t count)
    void c_dropout(
        bint wide, const void* inputs, double rate, uint64_t seed, uint64_t step, uint64_t layer,
        void* outputs, Py_ssize_t rows, Py_ssize_t units)
    void c_permutation "permutation"(
        uint64_t seed, uint64_t epoch, int64_t* outputs, Py_ssize_t n)
    void c_update(
        bint wide, int kind, void* parameters, const void* gradients, void* first, void* second,
        double learning_rate, double momentum, double beta_2, double epsilon, int64_t step,
        double weight_decay, Py_ssize_t n)
    double c_add_penalty(
        bint wide, const void* parameters, double l1, double l2, void* gradients, Py_ssize_t n)
    void c_quadratic_features(
        bint wide, const void* inputs, void* outputs, Py_ssize_t rows, Py_ssize_t count)
    void c_logistic_descent(
        bint wide, const void* inputs, const void* targets, void* weights, const int64_t* batches,
        Py_ssize_t steps, Py_ssize_t batch, int method, double learning_rate, double decay,
        double epsilon, void* state, void* gradients, const void* columns, void* losses,
        void* history, Py_ssize_t n, Py_ssize_t features)
    int c_planar_descent(
        bint wide, const void* inputs, const void* targets, const int64_t* hidden_sizes,
        Py_ssize_t networks, void* parameters, double learning_rate, Py_ssize_t iterations,
        Py_ssize_t cost_every, int threads, double* costs, Py_ssize_t n_x, Py_ssize_t n_y,
        Py_ssize_t m)
    int ENGINE_LAYERS "MOST_LAYERS"
    int PARTS
    void cut_rows(
        const int64_t* starts, const int32_t* columns, const uint16_t* short_columns, Py_ssize_t rows,
        const int64_t* edges, int32_t* cuts)
    double seconds()
    ctypedef struct plan:
        int layers
        const int64_t* sizes
        const int64_t* activations
        const double* slopes
        const double* dropout
        int loss
        bint from_logits
        double loss_parameter
        double l1
        double l2
        uint64_t seed
        uint64_t iteration
        int optimizer
        double momentum
        double beta_2
        double epsilon
        double weight_decay
        double clipvalue
        double clipnorm
        double global_clipnorm
        int64_t updates
        void* parameters
        void* slots[2]
        void* gradients
        const void* inputs
        const int64_t* starts
        const int32_t* columns
        const void* values
        const uint16_t* short_columns
        const uint8_t* codes
        const void* table
        const int64_t* edges
        const int32_t* cuts
        const void* shifts
        const int32_t* live
        Py_ssize_t live_count
        const void* targets
        const int64_t* labels
        const void* sample_weight
        int64_t* order
        Py_ssize_t n
        Py_ssize_t batch
        uint64_t epoch
        Py_ssize_t first
        Py_ssize_t steps
        const double* rates
        double* totals
        double until
        int threads
    Py_ssize_t c_train(bint wide, const plan* p)
    int c_infer(bint wide, const plan* p, void* outputs)
    Py_ssize_t c_predict_memory(bint wide, const plan* p, Py_ssize_t rows)
    void c_predict_few(bint wide, const plan* p, const void* inputs, char* memory, void* outputs)
    void* scratch_memory(Py_ssize_t bytes)
    void give_back(void* scratch)
    bint c_count_nonzeros(
        bint wide, const void* inputs, const void* shifts, Py_ssize_t rows, Py_ssize_t columns,
        int threads, int64_t* starts, void* used)
    void c_take_nonzeros(
        bint wide, const void* inputs, const void* shifts, Py_ssize_t rows, Py_ssize_t columns,
        int threads, const int64_t* starts, int32_t* positions, void* values)
    bint c_code_given(
        bint wide, const int32_t* columns, const void* values, int64_t count, int threads,
        uint16_t* positions, uint8_t* numbers, void* table)
    bint c_code_dense(
        bint wide, const void* inputs, const void* shifts, Py_ssize_t rows, Py_ssize_t columns,
        double density, int threads, int64_t* starts, uint16_t* positions, uint8_t* numbers,
        void* table, void* used)


CPU_LEVEL = FASTDL_CPU_LEVEL.decode()
DEBUG = bool(FASTDL_DEBUG)


# ------------------------------------------------------------------------------- unwrapping


cdef inline bint is_wide(cnp.ndarray array):
    return cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT64


cdef inline Py_ssize_t rows_of(cnp.ndarray array):
    return cnp.PyArray_DIM(array, 0)


cdef inline Py_ssize_t columns_of(cnp.ndarray array):
    return cnp.PyArray_DIM(array, 1)


cdef inline void* data(cnp.ndarray array) noexcept nogil:
    """The array's elements; NULL for None."""
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef tuple dims(object array):
    """The array's shape, as Python sees it."""
    return array.shape


cdef int verify(cnp.ndarray like, tuple expected) except -1:
    """In a debug build: every array is C-contiguous, has its shape, and the dtype of `like`.

    `expected` holds pairs (array or None, shape). Integer arrays must be int64.
    """
    for array, shape in expected:
        if array is None:
            continue
        assert array.shape == shape, f"shape {array.shape} instead of {shape}"
        assert array.flags.c_contiguous and array.flags.aligned, "layout"
        assert array.dtype in ((np.int64,) if array.dtype.kind == "i" else (like.dtype,))
    assert like.dtype in (np.float32, np.float64, np.int64)
    return 0


# -------------------------------------------------------------------- elementwise functions


def exp(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(inputs)
    with nogil:
        map_exp(wide, data(inputs), data(outputs), n)


def log(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(inputs)
    with nogil:
        map_log(wide, data(inputs), data(outputs), n)


def log1p(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(inputs)
    with nogil:
        map_log1p(wide, data(inputs), data(outputs), n)


def expm1(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(inputs)
    with nogil:
        map_expm1(wide, data(inputs), data(outputs), n)


def tanh(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(inputs)
    with nogil:
        map_tanh(wide, data(inputs), data(outputs), n)


def sigmoid(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(inputs)
    with nogil:
        map_sigmoid(wide, data(inputs), data(outputs), n)


# ------------------------------------------------------------------------------ activations


def activation_forward(
    cnp.ndarray inputs not None, int activation, double slope, cnp.ndarray outputs not None
):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
        assert inputs.ndim == 2 and 0 <= activation <= LAST_ACTIVATION
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(inputs), columns = columns_of(inputs)
    with nogil:
        c_activation_forward(
            wide, data(inputs), activation, slope, data(outputs), rows, columns)


def activation_backward(
    cnp.ndarray inputs not None,
    cnp.ndarray outputs not None,
    cnp.ndarray grad_outputs not None,
    int activation,
    double slope,
    cnp.ndarray grad_inputs not None,
):
    if FASTDL_DEBUG:
        shape = dims(inputs)
        verify(inputs, (
            (inputs, shape), (outputs, shape), (grad_outputs, shape), (grad_inputs, shape)))
        assert inputs.ndim == 2 and 0 <= activation <= LAST_ACTIVATION
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(inputs), columns = columns_of(inputs)
    with nogil:
        c_activation_backward(
            wide, data(inputs), data(outputs), data(grad_outputs), activation, slope,
            data(grad_inputs), rows, columns)


# -------------------------------------------------------------------------- the dense layer


# From this many multiplications on, a product goes to NumPy's BLAS, which runs on several threads: on
# two idle cores it wins from about 2**22 in float64 and 2**24 in float32. Not below that in either,
# since its threads wait by spinning: beside other work, products of 2**23 took ten times as long.
cdef Py_ssize_t BLAS_PRODUCTS = 1 << 24


cdef int multiply(
    cnp.ndarray left,
    bint transpose_left,
    cnp.ndarray right,
    bint transpose_right,
    cnp.ndarray bias,
    cnp.ndarray outputs,
) except -1:
    """outputs (M, N) = left @ right + bias, either factor transposed first, bias None or (N,)."""
    cdef Py_ssize_t m = rows_of(outputs), n = columns_of(outputs)
    cdef Py_ssize_t depth = rows_of(left) if transpose_left else columns_of(left)
    cdef Py_ssize_t a_row = columns_of(left), a_column = 1
    cdef Py_ssize_t b_row = columns_of(right), b_column = 1
    cdef bint wide = is_wide(outputs)
    if m * n >= 1 and depth >= 1 and m * n >= BLAS_PRODUCTS / depth:
        np.dot(left.T if transpose_left else left, right.T if transpose_right else right, outputs)
        if bias is not None:
            with nogil:
                c_add_bias(wide, data(outputs), data(bias), m, n)
        return 0
    if transpose_left:
        a_row, a_column = 1, a_row
    if transpose_right:
        b_row, b_column = 1, b_row
    with nogil:
        c_product(
            wide, m, n, depth, data(left), a_row, a_column, data(right), b_row, b_column,
            data(bias), data(outputs))
    return 0


def matmul(
    cnp.ndarray left not None,
    cnp.ndarray right not None,
    bint transpose_left,
    bint transpose_right,
    cnp.ndarray outputs not None,
):
    if FASTDL_DEBUG:
        a = dims(left)[::-1] if transpose_left else dims(left)
        b = dims(right)[::-1] if transpose_right else dims(right)
        assert a[1] == b[0]
        verify(left, ((left, dims(left)), (right, dims(right)), (outputs, (a[0], b[1]))))
    multiply(left, transpose_left, right, transpose_right, None, outputs)


def dense_forward(
    cnp.ndarray inputs not None,
    cnp.ndarray weights not None,
    cnp.ndarray bias not None,
    int activation,
    double slope,
    cnp.ndarray preactivations not None,
    cnp.ndarray outputs not None,
):
    if FASTDL_DEBUG:
        shape = (len(inputs), weights.shape[1])
        verify(inputs, (
            (inputs, (shape[0], len(weights))), (weights, dims(weights)), (bias, shape[1:]),
            (preactivations, shape), (outputs, shape)))
        assert 0 <= activation <= LAST_ACTIVATION
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(outputs), columns = columns_of(outputs)
    multiply(inputs, False, weights, False, bias, preactivations)
    with nogil:
        c_activation_forward(
            wide, data(preactivations), activation, slope, data(outputs), rows, columns)


def dense_backward(
    cnp.ndarray inputs not None,
    cnp.ndarray weights not None,
    cnp.ndarray preactivations not None,
    cnp.ndarray outputs not None,
    cnp.ndarray grad_outputs not None,
    int activation,
    double slope,
    cnp.ndarray grad_preactivations not None,
    cnp.ndarray grad_inputs,
    cnp.ndarray grad_weights not None,
    cnp.ndarray grad_bias not None,
):
    if FASTDL_DEBUG:
        shape = (len(inputs), weights.shape[1])
        verify(inputs, (
            (inputs, (shape[0], len(weights))), (weights, dims(weights)),
            (preactivations, shape), (outputs, shape), (grad_outputs, shape),
            (grad_preactivations, shape), (grad_inputs, dims(inputs)),
            (grad_weights, dims(weights)), (grad_bias, shape[1:])))
        assert 0 <= activation <= LAST_ACTIVATION
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(outputs), columns = columns_of(outputs)
    with nogil:
        c_activation_backward(
            wide, data(preactivations), data(outputs), data(grad_outputs), activation, slope,
            data(grad_preactivations), rows, columns)
        c_column_sums(wide, data(grad_preactivations), data(grad_bias), rows, columns)
    multiply(inputs, True, grad_preactivations, False, None, grad_weights)
    if grad_inputs is not None:
        multiply(grad_preactivations, False, weights, True, None, grad_inputs)


# ----------------------------------------------------------------------------------- losses


cdef int verify_loss(
    cnp.ndarray targets, cnp.ndarray predictions, cnp.ndarray sample_weight, cnp.ndarray gradients
) except -1:
    shape = dims(predictions)
    verify(predictions, (
        (targets, shape[:1] if targets.dtype == np.int64 else shape), (predictions, shape),
        (sample_weight, shape[:1]), (gradients, shape)))
    assert len(shape) == 2
    return 0


def binary_crossentropy(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    bint from_logits,
    double label_smoothing,
    cnp.ndarray gradients not None,
):
    if FASTDL_DEBUG:
        verify_loss(targets, predictions, sample_weight, gradients)
    cdef bint wide = is_wide(predictions)
    cdef Py_ssize_t rows = rows_of(predictions), columns = columns_of(predictions)
    cdef double total
    with nogil:
        total = c_binary_crossentropy(
            wide, data(targets), data(predictions), data(sample_weight),
            from_logits, label_smoothing, data(gradients), rows, columns, rows)
    return total


def categorical_crossentropy(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    bint from_logits,
    double label_smoothing,
    cnp.ndarray gradients not None,
):
    if FASTDL_DEBUG:
        verify_loss(targets, predictions, sample_weight, gradients)
    cdef bint wide = is_wide(predictions)
    cdef Py_ssize_t rows = rows_of(predictions), columns = columns_of(predictions)
    cdef double total
    with nogil:
        total = c_categorical_crossentropy(
            wide, data(targets), data(predictions), data(sample_weight),
            from_logits, label_smoothing, data(gradients), rows, columns, rows)
    return total


def sparse_categorical_crossentropy(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    bint from_logits,
    double label_smoothing,
    cnp.ndarray gradients not None,
):
    if FASTDL_DEBUG:
        verify_loss(targets, predictions, sample_weight, gradients)
        assert ((targets >= 0) & (targets < predictions.shape[1])).all()
    cdef bint wide = is_wide(predictions)
    cdef Py_ssize_t rows = rows_of(predictions), columns = columns_of(predictions)
    cdef double total
    with nogil:
        total = c_sparse_categorical_crossentropy(
            wide, <const int64_t*> data(targets), data(predictions), data(sample_weight),
            from_logits, label_smoothing, data(gradients), rows, columns, rows)
    return total


cdef double regression(
    int loss, cnp.ndarray targets, cnp.ndarray predictions, cnp.ndarray sample_weight,
    double parameter, cnp.ndarray gradients) except? -1:
    if FASTDL_DEBUG:
        verify_loss(targets, predictions, sample_weight, gradients)
    cdef bint wide = is_wide(predictions)
    cdef Py_ssize_t rows = rows_of(predictions), columns = columns_of(predictions)
    cdef double total
    with nogil:
        total = c_regression(
            wide, loss, data(targets), data(predictions), data(sample_weight), parameter,
            data(gradients), rows, columns, rows)
    return total


def mean_squared_error(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    cnp.ndarray gradients not None,
):
    return regression(MEAN_SQUARED_ERROR, targets, predictions, sample_weight, 0, gradients)


def mean_absolute_error(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    cnp.ndarray gradients not None,
):
    return regression(MEAN_ABSOLUTE_ERROR, targets, predictions, sample_weight, 0, gradients)


def huber(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    double delta,
    cnp.ndarray gradients not None,
):
    return regression(HUBER, targets, predictions, sample_weight, delta, gradients)


def poisson(
    cnp.ndarray targets not None,
    cnp.ndarray predictions not None,
    cnp.ndarray sample_weight,
    cnp.ndarray gradients not None,
):
    return regression(POISSON, targets, predictions, sample_weight, 0, gradients)


# --------------------------------------------------------------------------- random numbers


def dropout(
    cnp.ndarray inputs not None,
    double rate,
    uint64_t seed,
    uint64_t step,
    uint64_t layer,
    cnp.ndarray outputs not None,
):
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (outputs, dims(inputs))))
        assert inputs.ndim == 2 and 0 <= rate <= 1
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(inputs), units = columns_of(inputs)
    with nogil:
        c_dropout(wide, data(inputs), rate, seed, step, layer, data(outputs), rows, units)


def permutation(uint64_t seed, uint64_t epoch, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        verify(outputs, ((outputs, (len(outputs),)),))
        assert outputs.dtype == np.int64
    cdef Py_ssize_t n = rows_of(outputs)
    with nogil:
        c_permutation(seed, epoch, <int64_t*> data(outputs), n)


# ------------------------------------------------------------------------ optimizer updates


def sgd_update(
    cnp.ndarray parameters not None,
    cnp.ndarray gradients not None,
    cnp.ndarray velocity,
    double learning_rate,
    double momentum,
    bint nesterov,
    double weight_decay,
):
    if FASTDL_DEBUG:
        shape = dims(parameters)
        verify(parameters, ((parameters, shape), (gradients, shape), (velocity, shape)))
    cdef bint wide = is_wide(parameters)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(parameters)
    with nogil:
        c_update(
            wide, SGD if velocity is None else NESTEROV if nesterov else MOMENTUM,
            data(parameters), data(gradients), data(velocity), NULL, learning_rate, momentum, 0, 0,
            1, weight_decay, n)


def rmsprop_update(
    cnp.ndarray parameters not None,
    cnp.ndarray gradients not None,
    cnp.ndarray mean_square not None,
    double learning_rate,
    double rho,
    double epsilon,
    double weight_decay,
):
    if FASTDL_DEBUG:
        shape = dims(parameters)
        verify(parameters, ((parameters, shape), (gradients, shape), (mean_square, shape)))
    cdef bint wide = is_wide(parameters)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(parameters)
    with nogil:
        c_update(
            wide, RMSPROP, data(parameters), data(gradients), data(mean_square), NULL,
            learning_rate, rho, 0, epsilon, 1, weight_decay, n)


def adam_update(
    cnp.ndarray parameters not None,
    cnp.ndarray gradients not None,
    cnp.ndarray first_moment not None,
    cnp.ndarray second_moment not None,
    double learning_rate,
    double beta_1,
    double beta_2,
    double epsilon,
    int64_t step,
    double weight_decay,
):
    if FASTDL_DEBUG:
        shape = dims(parameters)
        verify(parameters, (
            (parameters, shape), (gradients, shape), (first_moment, shape),
            (second_moment, shape)))
        assert step >= 1
    cdef bint wide = is_wide(parameters)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(parameters)
    with nogil:
        c_update(
            wide, ADAM, data(parameters), data(gradients), data(first_moment),
            data(second_moment), learning_rate, beta_1, beta_2, epsilon, step, weight_decay, n)


def add_penalty(
    cnp.ndarray parameters not None, double l1, double l2, cnp.ndarray gradients not None
):
    if FASTDL_DEBUG:
        verify(parameters, ((parameters, dims(parameters)), (gradients, dims(parameters))))
    cdef bint wide = is_wide(parameters)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(parameters)
    cdef double penalty
    with nogil:
        penalty = c_add_penalty(wide, data(parameters), l1, l2, data(gradients), n)
    return penalty


# --------------------------------------------------------------------------------- features


def quadratic_features(cnp.ndarray inputs not None, cnp.ndarray outputs not None):
    if FASTDL_DEBUG:
        count = inputs.shape[1]
        width = 2 * count + count * (count - 1) // 2 + 1
        verify(inputs, ((inputs, dims(inputs)), (outputs, (len(inputs), width))))
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(inputs), columns = columns_of(inputs)
    with nogil:
        c_quadratic_features(wide, data(inputs), data(outputs), rows, columns)


# --------------------------------------------------------------------- whole training loops


def logistic_descent(
    cnp.ndarray inputs not None,
    cnp.ndarray targets not None,
    cnp.ndarray weights not None,
    cnp.ndarray batches not None,
    int method,
    double learning_rate,
    double decay,
    double epsilon,
    cnp.ndarray state not None,
    cnp.ndarray columns,
    cnp.ndarray losses,
    cnp.ndarray history,
):
    if FASTDL_DEBUG:
        n, features = dims(inputs)
        verify(inputs, (
            (inputs, (n, features)), (targets, (n,)), (weights, (features,)),
            (batches, dims(batches)), (state, (features,)), (columns, (features, n)),
            (losses, (len(batches),)), (history, (len(batches) + 1, features))))
        assert batches.ndim == 2 and batches.dtype == np.int64
        assert ((batches >= 0) & (batches < n)).all() and 0 <= method <= 2
        assert losses is None or columns is not None
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t rows = rows_of(inputs), width = columns_of(inputs)
    cdef Py_ssize_t steps = rows_of(batches), batch = columns_of(batches)
    cdef cnp.ndarray gradients = np.empty_like(weights)
    with nogil:
        c_logistic_descent(
            wide, data(inputs), data(targets), data(weights), <const int64_t*> data(batches),
            steps, batch, method, learning_rate, decay, epsilon, data(state), data(gradients),
            data(columns), data(losses), data(history), rows, width)


def planar_descent(
    cnp.ndarray inputs not None,
    cnp.ndarray targets not None,
    cnp.ndarray hidden_sizes not None,
    cnp.ndarray parameters not None,
    double learning_rate,
    Py_ssize_t iterations,
    Py_ssize_t cost_every,
    int threads,
    cnp.ndarray costs not None,
):
    cdef Py_ssize_t n_x = rows_of(inputs), n_y = rows_of(targets), m = columns_of(inputs)
    if FASTDL_DEBUG:
        sizes = hidden_sizes.tolist()
        recorded = (iterations - 1) // cost_every + 1 if iterations else 0
        verify(inputs, (
            (inputs, dims(inputs)), (targets, (n_y, m)), (hidden_sizes, (len(sizes),)),
            (parameters, (sum(h * n_x + h + n_y * h + n_y for h in sizes),))))
        assert 1 <= threads <= MOST_THREADS
        assert dims(costs) == (len(sizes), recorded) and costs.dtype == np.float64
    cdef bint wide = is_wide(inputs)
    cdef Py_ssize_t networks = rows_of(hidden_sizes)
    cdef int status
    with nogil:
        status = c_planar_descent(
            wide, data(inputs), data(targets), <const int64_t*> data(hidden_sizes), networks,
            data(parameters), learning_rate, iterations, cost_every, threads,
            <double*> data(costs), n_x, n_y, m)
    if status < 0:
        raise MemoryError("planar_descent: no memory, or no threads, to be had")


# ------------------------------------------------------------------------------- the engine


# The deepest network that the engine takes.
MOST_LAYERS = ENGINE_LAYERS
# Blocks of a layer's inputs.
BLOCKS = PARTS

# Its codes: updates and losses by the names of their kernels.
UPDATES = ("sgd", "momentum", "nesterov", "rmsprop", "adam")
LOSSES = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "poisson",
)


def train_steps(
    cnp.ndarray sizes not None,
    cnp.ndarray activations not None,
    cnp.ndarray slopes not None,
    cnp.ndarray dropout not None,
    str loss not None,
    bint from_logits,
    double loss_parameter,
    double l1,
    double l2,
    uint64_t seed,
    uint64_t iteration,
    str update not None,
    double momentum,
    double beta_2,
    double epsilon,
    double weight_decay,
    double clipvalue,
    double clipnorm,
    double global_clipnorm,
    int64_t updates,
    cnp.ndarray parameters not None,
    cnp.ndarray first_slot,
    cnp.ndarray second_slot,
    cnp.ndarray gradients,
    cnp.ndarray inputs,
    tuple sparse,
    cnp.ndarray targets not None,
    cnp.ndarray labels,
    cnp.ndarray sample_weight,
    cnp.ndarray order,
    uint64_t epoch,
    Py_ssize_t batch_size,
    Py_ssize_t first,
    cnp.ndarray rates not None,
    cnp.ndarray totals not None,
    double limit,
    int threads,
):
    """Take steps of one epoch or more until they, or `limit` seconds, are over; return how many.

    Layers are described by sizes (L + 1,), activations, slopes and dropout (L,); parameters, slots
    and gradients are flat. Data is `inputs` (n, I), or what `describe` takes for `sparse` rows.
    `rates` holds a learning rate for each step, the first of them being step `first` of epoch
    number `epoch`. `totals` (epochs, 3) has a row for each epoch that they reach into. `order` (n,),
    or None, receives the permutation of each epoch at its first step.
    """
    if FASTDL_DEBUG:
        n, size = len(targets), dims(parameters)
        verify(parameters, (
            (parameters, size), (first_slot, size), (second_slot, size), (gradients, size),
            (sample_weight, (n,)), (labels, (n,)), (order, (n,)),
            (inputs, (n, sizes[0]))))
        assert dims(dropout) == dims(activations) and dropout.dtype == np.float64
        assert totals.dtype == rates.dtype == np.float64
        assert sparse is None or len(sparse[0]) == n + 1
        assert batch_size >= 1 and len(rates) >= 1
        steps = -(-n // batch_size)
        assert 0 <= first < steps and dims(totals) == (-(-(first + len(rates)) // steps), 3)
        assert not first or order is None or np.array_equal(np.sort(order), np.arange(n))
    cdef plan p
    memset(&p, 0, sizeof(plan))
    describe(&p, sizes, activations, slopes, parameters, inputs, sparse, threads)
    p.dropout = <const double*> data(dropout)
    p.loss = LOSSES.index(loss)
    p.from_logits = from_logits
    p.loss_parameter = loss_parameter
    p.l1, p.l2 = l1, l2
    p.seed, p.iteration = seed, iteration
    p.optimizer = UPDATES.index(update)
    p.momentum, p.beta_2, p.epsilon, p.weight_decay = momentum, beta_2, epsilon, weight_decay
    p.clipvalue, p.clipnorm, p.global_clipnorm = clipvalue, clipnorm, global_clipnorm
    p.updates = updates
    p.slots[0], p.slots[1] = data(first_slot), data(second_slot)
    p.gradients = data(gradients)
    p.targets = data(targets)
    p.labels = <const int64_t*> data(labels)
    p.sample_weight = data(sample_weight)
    p.order = <int64_t*> data(order)
    p.n, p.batch = rows_of(targets), min(batch_size, rows_of(targets))
    p.epoch = epoch
    p.first, p.steps = first, rows_of(rates)
    p.rates = <const double*> data(rates)
    p.totals = <double*> data(totals)
    p.until = seconds() + limit
    cdef bint wide = is_wide(parameters)
    cdef Py_ssize_t taken
    with nogil:
        taken = c_train(wide, &p)
    if taken < 0:
        raise MemoryError("no memory or no threads for the training engine")
    return taken


def infer(
    cnp.ndarray sizes not None,
    cnp.ndarray activations not None,
    cnp.ndarray slopes not None,
    cnp.ndarray parameters not None,
    cnp.ndarray inputs,
    tuple sparse,
    cnp.ndarray outputs not None,
    int threads,
):
    """Write a network's outputs for all rows of `inputs`, or of `sparse`, to outputs (n, O)."""
    if FASTDL_DEBUG:
        n = len(outputs)
        verify(parameters, ((inputs, (n, sizes[0])), (outputs, (n, sizes[len(activations)]))))
        assert sparse is None or len(sparse[0]) == n + 1
    cdef plan p
    memset(&p, 0, sizeof(plan))
    describe(&p, sizes, activations, slopes, parameters, inputs, sparse, threads)
    p.n = rows_of(outputs)
    cdef bint wide = is_wide(parameters)
    cdef int status
    with nogil:
        status = c_infer(wide, &p, data(outputs))
    if status < 0:
        raise MemoryError("no memory or no threads for prediction")


# What a Predictor takes: for more, what else a call costs is not felt, and threads are wanted.
cdef enum:
    FEW_ROWS = 32
    FEW_PRODUCTS = 1 << 22


cdef class Predictor:
    """Prediction of a row, or a few, with next to nothing between the caller and the kernel.

    It takes a network as `infer` does, whose parameters must stay where they are, and computes in
    memory of its own, which the GIL guards.
    """

    cdef plan p
    cdef tuple kept
    cdef bint wide
    cdef int dtype
    cdef Py_ssize_t most_rows, features, units
    cdef char* memory

    def __cinit__(
        self,
        cnp.ndarray sizes not None,
        cnp.ndarray activations not None,
        cnp.ndarray slopes not None,
        cnp.ndarray parameters not None,
    ):
        self.kept = sizes, activations, slopes, parameters
        describe(&self.p, sizes, activations, slopes, parameters, parameters, None, 1)
        self.wide = is_wide(parameters)
        self.dtype = cnp.PyArray_TYPE(parameters)
        self.most_rows = min(FEW_ROWS, FEW_PRODUCTS // rows_of(parameters))
        self.features, self.units = self.p.sizes[0], self.p.sizes[self.p.layers]
        self.memory = <char*> scratch_memory(
            c_predict_memory(self.wide, &self.p, max(self.most_rows, 1)))
        if self.memory == NULL:
            raise MemoryError("no memory for prediction")

    def __dealloc__(self):
        give_back(self.memory)

    def __call__(self, X, out):
        """The outputs for X, in `out` unless that is None; None for what is left to the general way.

        That is all but C-contiguous, aligned arrays of the network's dtype, few rows of X, and an
        `out` that is apart from X.
        """
        if not self.fits(X, self.features) or not 1 <= rows_of(X) <= self.most_rows:
            return None
        cdef cnp.npy_intp[2] shape = [rows_of(X), self.units]
        if out is None:
            out = cnp.PyArray_EMPTY(2, shape, self.dtype, 0)
        elif not (
            self.fits(out, self.units)
            and rows_of(out) == shape[0]
            and cnp.PyArray_ISWRITEABLE(out)
            and apart(X, out)
        ):
            return None
        self.p.n = shape[0]
        c_predict_few(self.wide, &self.p, data(X), self.memory, data(out))
        return out

    cdef inline bint fits(self, array, Py_ssize_t columns) noexcept:
        return (
            cnp.PyArray_CheckExact(array)
            and cnp.PyArray_TYPE(array) == self.dtype
            and cnp.PyArray_NDIM(array) == 2
            and cnp.PyArray_ISCARRAY_RO(array)
            and columns_of(array) == columns
        )


cdef inline bint apart(cnp.ndarray left, cnp.ndarray right) noexcept:
    """Whether two contiguous arrays share no memory."""
    cdef const char* first = <const char*> data(left)
    cdef const char* second = <const char*> data(right)
    return first + cnp.PyArray_NBYTES(left) <= second or second + cnp.PyArray_NBYTES(right) <= first


cdef int describe(
    plan* p,
    cnp.ndarray sizes,
    cnp.ndarray activations,
    cnp.ndarray slopes,
    cnp.ndarray parameters,
    cnp.ndarray inputs,
    tuple sparse,
    int threads,
) except -1:
    """What training and prediction have in common.

    `sparse` rows are their starts, columns, values, live columns, edges, cuts, shifts or None, and
    codes or None: the first four as `sparse_rows` gives them, edges and cuts as `part_rows`, codes
    as `coded_rows`, and with these None for columns and values.
    """
    if FASTDL_DEBUG:
        count = len(activations)
        assert dims(sizes) == (count + 1,) and dims(slopes) == (count,)
        assert count <= ENGINE_LAYERS and 1 <= threads <= MOST_THREADS
        assert (inputs is None) != (sparse is None)
        verify(parameters, ((parameters, (
            sum((i + 1) * o for i, o in zip(sizes[:count].tolist(), sizes[1:].tolist())),)),))
    p.layers = <int> rows_of(activations)
    p.sizes = <const int64_t*> data(sizes)
    p.activations = <const int64_t*> data(activations)
    p.slopes = <const double*> data(slopes)
    p.parameters = data(parameters)
    p.inputs = data(inputs)
    p.threads = threads
    if sparse is not None:
        starts, columns, values, live, edges, cuts, shifts, coded = sparse
        if FASTDL_DEBUG:
            verify(parameters, ((shifts, (sizes[0],)),))
        p.starts = <const int64_t*> data(starts)
        p.columns = <const int32_t*> data(columns)
        p.values = data(values)
        p.edges = <const int64_t*> data(edges)
        p.cuts = <const int32_t*> data(cuts)
        p.shifts = data(shifts)
        p.live = <const int32_t*> data(live)
        p.live_count = len(live)
        if coded is not None:
            columns, codes, table = coded
            p.short_columns = <const uint16_t*> data(columns)
            p.codes = <const uint8_t*> data(codes)
            p.table = data(table)
    return 0


def sparse_rows(
    cnp.ndarray inputs not None, double density, int threads, cnp.ndarray shifts = None
):
    """Whether all of inputs (n, I) is finite; and its nonzero elements.

    With shifts (I,), those of inputs - shifts.

    Returns
    -------
    bool
    tuple or None
        None where more than the share `density` is not 0, or something is not finite; else
        starts (n + 1,) int64, columns int32, values : row b's are at starts[b] to starts[b + 1],
        and behind the last row's there are 16 zeros;
        live : int32, the columns in which some row, or the shift, is not 0.
    """
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (shifts, (inputs.shape[1],))))
        assert 1 <= threads <= MOST_THREADS
    cdef Py_ssize_t n = rows_of(inputs), width = columns_of(inputs)
    cdef bint wide = is_wide(inputs), finite
    cdef cnp.ndarray starts = np.empty(n + 1, np.int64)
    cdef cnp.ndarray used = np.zeros((threads, width), np.uint64 if wide else np.uint32)
    with nogil:
        finite = c_count_nonzeros(
            wide, data(inputs), data(shifts), n, width, threads, <int64_t*> data(starts),
            data(used))
    cdef int64_t count = (<int64_t*> data(starts))[n]
    if not finite or count > density * (n * width) or width > 2**31 - 1:
        return finite, None
    # A vector that starts at the last element may be read whole.
    cdef cnp.ndarray columns = np.empty(count + 16, np.int32)
    cdef cnp.ndarray values = np.empty(count + 16, inputs.dtype)
    columns[count:] = 0
    values[count:] = 0
    with nogil:
        c_take_nonzeros(
            wide, data(inputs), data(shifts), n, width, threads, <int64_t*> data(starts),
            <int32_t*> data(columns), data(values))
    return finite, (starts, columns, values, live_columns(used, shifts))


cdef cnp.ndarray live_columns(cnp.ndarray used, cnp.ndarray shifts):
    """The columns that a thread used (threads, I), or that have a shift."""
    there = used.any(axis=0)
    if shifts is not None:
        there |= shifts != 0
    return np.flatnonzero(there).astype(np.int32)


def coded_rows(
    cnp.ndarray inputs not None, double density, int threads, cnp.ndarray shifts = None
):
    """What `sparse_rows` finds, in three bytes an element instead of eight or more.

    Returns
    -------
    tuple or None
        starts and live as there; codes: columns uint16, uint8 for the values, and table (256,) of
        the values by these, the first of them 0. None where there are more than 255 different values
        or 65,536 features, where more than the share `density` of the rows that a thread takes is not
        0, where something is not finite, or without memory.
    """
    if FASTDL_DEBUG:
        verify(inputs, ((inputs, dims(inputs)), (shifts, (inputs.shape[1],))))
        assert 1 <= threads <= MOST_THREADS
    cdef Py_ssize_t n = rows_of(inputs), width = columns_of(inputs)
    if width > 1 << 16:
        return None
    cdef bint wide = is_wide(inputs), few
    cdef cnp.ndarray starts = np.empty(n + 1, np.int64)
    cdef cnp.ndarray used = np.zeros((threads, width), np.uint64 if wide else np.uint32)
    cdef Py_ssize_t most = <Py_ssize_t> (density * (n * width))
    cdef cnp.ndarray columns, numbers
    try:  # The system gives what is written of these, but some do not promise more than they have.
        columns, numbers = np.empty(most, np.uint16), np.empty(most, np.uint8)
    except MemoryError:
        return None
    cdef cnp.ndarray table = np.empty(256, inputs.dtype)
    with nogil:
        few = c_code_dense(
            wide, data(inputs), data(shifts), n, width, density, threads, <int64_t*> data(starts),
            <uint16_t*> data(columns), <uint8_t*> data(numbers), data(table), data(used))
    if not few:
        return None
    cdef Py_ssize_t count = (<int64_t*> data(starts))[n]
    columns.resize(count, refcheck=False)
    numbers.resize(count, refcheck=False)
    return starts, live_columns(used, shifts), (columns, numbers, table)


def codes_of(
    cnp.ndarray columns not None, cnp.ndarray values not None, Py_ssize_t features, int threads
):
    """The codes of `coded_rows` for all elements that `sparse_rows` gave, or None."""
    if FASTDL_DEBUG:
        assert dims(columns) == dims(values) and columns.dtype == np.int32
        assert 1 <= threads <= MOST_THREADS
    if features > 1 << 16:
        return None
    cdef Py_ssize_t count = rows_of(values) - 16
    cdef cnp.ndarray positions = np.empty(count, np.uint16)
    cdef cnp.ndarray numbers = np.empty(count, np.uint8)
    cdef cnp.ndarray table = np.empty(256, values.dtype)
    cdef bint wide = is_wide(values), few
    with nogil:
        few = c_code_given(
            wide, <const int32_t*> data(columns), data(values), count, threads,
            <uint16_t*> data(positions), <uint8_t*> data(numbers), data(table))
    return (positions, numbers, table) if few else None


def part_rows(
    cnp.ndarray starts not None,
    cnp.ndarray columns not None,
    cnp.ndarray edges not None,
    cnp.ndarray cuts not None,
):
    """Write how many of a row's columns lie before edges 1, 2, ... but the last to cuts (n, PARTS - 1).

    Columns are int32, or uint16 of coded rows.
    """
    if FASTDL_DEBUG:
        assert dims(edges) == (PARTS + 1,) and edges.dtype == starts.dtype == np.int64
        assert dims(cuts) == (len(starts) - 1, PARTS - 1) and cuts.dtype == np.int32
    cdef Py_ssize_t n = rows_of(cuts)
    cdef bint short = columns.itemsize == 2
    with nogil:
        cut_rows(
            <const int64_t*> data(starts), <const int32_t*> (NULL if short else data(columns)),
            <const uint16_t*> (data(columns) if short else NULL), n, <const int64_t*> data(edges),
            <int32_t*> data(cuts))
