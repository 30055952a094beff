/* The operations of fastdl/reference.py for one REAL, which says what each means. Arrays are
 * C-contiguous; nothing is checked and nothing allocated. `omp simd` promises the compiler that no
 * element depends on another's result, which also holds where an output is an input. */

/* ------------------------------------------------------------------- elementwise functions */

#define MAP(name, expression)                                                        \
    static void FN(map_##name)(const REAL *inputs, REAL *outputs, ptrdiff_t n) {     \
        _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) {                      \
            REAL x = inputs[i];                                                      \
            outputs[i] = expression;                                                 \
        }                                                                            \
    }
/* Where no subnormal number matters but x that is the result itself: an operation on one takes some 150 cycles,
 * for all of its vector. */
#define FLUSHED_MAP(name, expression)                                                \
    MAP(name##_flushed, expression)                                                  \
    static void FN(map_##name)(const REAL *inputs, REAL *outputs, ptrdiff_t n) {     \
        const float_mode mode = flush_subnormals();                                  \
        FN(map_##name##_flushed)(inputs, outputs, n);                                \
        restore_subnormals(mode);                                                    \
    }

MAP(exp, FN(exp)(x))
MAP(log, FN(log)(x))
FLUSHED_MAP(log1p, FN(log1p)(x))
FLUSHED_MAP(expm1, FN(expm1)(x))
FLUSHED_MAP(tanh, FN(tanh)(x))
MAP(sigmoid, FN(sigmoid)(x))
MAP(softplus, FN(softplus)(x))
MAP(silu, x *FN(sigmoid)(x))
MAP(gelu, x *FN(normal_cdf)(x))
MAP(relu, x < 0 ? 0 : x) /* NaN passes */
#undef FLUSHED_MAP
#undef MAP

/* --------------------------------------------------------------------------- activations */

INLINE REAL FN(row_maximum)(const REAL *row, ptrdiff_t n) {
    REAL top = -(REAL)INFINITY;
#pragma omp simd reduction(max : top)
    for (ptrdiff_t i = 0; i < n; i++) top = row[i] > top ? row[i] : top;
    return top;
}

/* outputs = exp(row - top); returns their sum. A row shorter than a vector, as most softmaxes have,
 * is done as one, since the compiler's remainders go element by element. */
INLINE REAL FN(row_exp)(const REAL *row, REAL top, REAL *outputs, ptrdiff_t n) {
    REAL sum = 0;
    if (n <= LANES) {
        REAL padded[LANES];
#pragma omp simd
        for (int i = 0; i < LANES; i++) padded[i] = -(REAL)INFINITY;
        for (ptrdiff_t i = 0; i < n; i++) padded[i] = row[i] - top;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < LANES; i++) {
            padded[i] = FN(exp)(padded[i]);
            sum += padded[i];
        }
        for (ptrdiff_t i = 0; i < n; i++) outputs[i] = padded[i];
        return sum;
    }
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL y = FN(exp)(row[i] - top);
        outputs[i] = y;
        sum += y;
    }
    return sum;
}

#if defined(__AVX512F__) && SINGLE
#define HAS_SHORT_ROWS 1
/* exp(x - top), where top is the largest, of some lanes, and zeros in the others: a row that fits a register. */
INLINE __m512 FN(short_exp)(__mmask16 lanes, __m512 x, REAL *top) {
    REAL power[LANES];
    *top = _mm512_mask_reduce_max_ps(lanes, x);
    x = _mm512_mask_sub_ps(_mm512_set1_ps(-(REAL)INFINITY), lanes, x, _mm512_set1_ps(*top));
    _mm512_storeu_ps(power, x);
#pragma omp simd
    for (int i = 0; i < LANES; i++) power[i] = FN(exp)(power[i]);
    return _mm512_loadu_ps(power);
}
/* outputs = softmax of rows (rows, n) of at most LANES elements. Each is loaded before the one ahead of it is
 * stored: after a masked store, what stands behind it would have to wait for the cache. */
INLINE void FN(short_softmax)(const REAL *inputs, REAL *outputs, ptrdiff_t rows, ptrdiff_t n) {
    const __mmask16 lanes = (__mmask16)((1u << n) - 1);
    __m512 next = rows ? _mm512_maskz_loadu_ps(lanes, inputs) : _mm512_setzero_ps();
    for (ptrdiff_t b = 0; b < rows; b++, outputs += n) {
        REAL top;
        const __m512 powers = FN(short_exp)(lanes, next, &top);
        if (b + 1 < rows) next = _mm512_maskz_loadu_ps(lanes, inputs += n);
        _mm512_mask_storeu_ps(outputs, lanes,
                              _mm512_mul_ps(powers, _mm512_set1_ps(1 / _mm512_reduce_add_ps(powers))));
    }
}
#else
#define HAS_SHORT_ROWS 0
INLINE void FN(short_softmax)(const REAL *inputs, REAL *outputs, ptrdiff_t rows, ptrdiff_t n) {
    (void)inputs, (void)outputs, (void)rows, (void)n;
}
#endif

static void FN(activation_forward)(const REAL *inputs, int activation, double slope_, REAL *outputs,
                                   ptrdiff_t rows, ptrdiff_t columns) {
    const REAL slope = (REAL)slope_;
    const ptrdiff_t n = rows * columns;
    switch (activation) {
    case LINEAR:
        if (outputs != inputs) memcpy(outputs, inputs, n * sizeof(REAL));
        return;
    case RELU: FN(map_relu)(inputs, outputs, n); return;
    case SIGMOID: FN(map_sigmoid)(inputs, outputs, n); return;
    case TANH: FN(map_tanh)(inputs, outputs, n); return;
    case SOFTPLUS: FN(map_softplus)(inputs, outputs, n); return;
    case SILU: FN(map_silu)(inputs, outputs, n); return;
    case GELU: FN(map_gelu)(inputs, outputs, n); return;
    case LEAKY_RELU:
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++)
            outputs[i] = inputs[i] > 0 ? inputs[i] : slope * inputs[i];
        return;
    case ELU:
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++) {
            REAL x = inputs[i], below = slope * FN(expm1)(x > 0 ? 0 : x);
            outputs[i] = x > 0 ? x : below;
        }
        return;
    case SOFTMAX:
        if (HAS_SHORT_ROWS && columns <= LANES) {
            FN(short_softmax)(inputs, outputs, rows, columns);
            return;
        }
        for (ptrdiff_t b = 0; b < rows; b++, inputs += columns, outputs += columns) {
            REAL top = FN(row_maximum)(inputs, columns);
            REAL scale = 1 / FN(row_exp)(inputs, top, outputs, columns);
#pragma omp simd
            for (ptrdiff_t i = 0; i < columns; i++) outputs[i] *= scale;
        }
        return;
    case LOG_SOFTMAX:
        for (ptrdiff_t b = 0; b < rows; b++, inputs += columns, outputs += columns) {
            REAL top = FN(row_maximum)(inputs, columns), sum = 0;
#pragma omp simd reduction(+ : sum)
            for (ptrdiff_t i = 0; i < columns; i++) sum += FN(exp)(inputs[i] - top);
            REAL log_sum = FN(log)(sum);
#pragma omp simd
            for (ptrdiff_t i = 0; i < columns; i++) outputs[i] = (inputs[i] - top) - log_sum;
        }
        return;
    }
}

#define DERIVATIVE(expression)                                     \
    _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) {        \
        REAL y = outputs[i];                                       \
        grad_inputs[i] = grad_outputs[i] * (expression);           \
    }                                                              \
    return;

static void FN(activation_backward)(const REAL *inputs, const REAL *outputs,
                                    const REAL *grad_outputs, int activation, double slope_,
                                    REAL *grad_inputs, ptrdiff_t rows, ptrdiff_t columns) {
    const REAL slope = (REAL)slope_;
    const ptrdiff_t n = rows * columns;
    switch (activation) {
    case LINEAR:
        if (grad_inputs != grad_outputs) memcpy(grad_inputs, grad_outputs, n * sizeof(REAL));
        return;
    case RELU: DERIVATIVE(y > 0 ? 1 : 0)
    case LEAKY_RELU: DERIVATIVE(y > 0 ? 1 : slope)
    case ELU: DERIVATIVE(y > 0 ? 1 : y + slope)
    case SIGMOID: DERIVATIVE(y * (1 - y))
    case TANH: DERIVATIVE(1 - y * y)
    case SOFTPLUS: DERIVATIVE(-FN(expm1)(-y))
    case SILU: DERIVATIVE(FN(sigmoid)(inputs[i]) * (1 + inputs[i] - y))
    case GELU:
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++) {
            REAL x = inputs[i], size = FN(normal_size)(x); /* squares of others overflow */
            REAL density = FN(gaussian)(size) * (REAL)0.39894228040143267794;
            grad_inputs[i] = grad_outputs[i] * (FN(normal_cdf)(x) + x * density);
        }
        return;
    case SOFTMAX:
    case LOG_SOFTMAX:
        for (ptrdiff_t b = 0; b < rows; b++) {
            REAL sum = 0;
            if (activation == SOFTMAX) {
#pragma omp simd reduction(+ : sum)
                for (ptrdiff_t i = 0; i < columns; i++) sum += grad_outputs[i] * outputs[i];
#pragma omp simd
                for (ptrdiff_t i = 0; i < columns; i++)
                    grad_inputs[i] = outputs[i] * (grad_outputs[i] - sum);
            } else {
#pragma omp simd reduction(+ : sum)
                for (ptrdiff_t i = 0; i < columns; i++) sum += grad_outputs[i];
#pragma omp simd
                for (ptrdiff_t i = 0; i < columns; i++)
                    grad_inputs[i] = grad_outputs[i] - FN(exp)(outputs[i]) * sum;
            }
            outputs += columns;
            grad_outputs += columns;
            grad_inputs += columns;
        }
        return;
    }
}
#undef DERIVATIVE

/* Adds bias (columns,) to each row of a product that BLAS has computed. */
static void FN(add_bias)(REAL *outputs, const REAL *bias, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t b = 0; b < rows; b++, outputs += columns) {
#pragma omp simd
        for (ptrdiff_t i = 0; i < columns; i++) outputs[i] += bias[i];
    }
}

/* sums (columns,) = sum of the rows, in order. */
static void FN(column_sums)(const REAL *inputs, REAL *sums, ptrdiff_t rows, ptrdiff_t columns) {
    memset(sums, 0, columns * sizeof(REAL));
    for (ptrdiff_t b = 0; b < rows; b++, inputs += columns) {
#pragma omp simd
        for (ptrdiff_t i = 0; i < columns; i++) sums[i] += inputs[i];
    }
}

/* -------------------------------------------------------------------------------- losses
 *
 * Each returns the given rows' share of the loss of `count` rows, added up in double, and writes
 * its gradient in the predictions. */

/* Runs the given block for each output of each row, which sets loss and slope from t and p; `weight` is
 * sample_weight / (count * columns). */
#define ELEMENTWISE_LOSS(...)                                                        \
    double total = 0;                                                                \
    for (ptrdiff_t b = 0; b < rows; b++) {                                           \
        double weight = (sample_weight ? (double)sample_weight[b] : 1.0) / count / columns; \
        double sum = 0;                                                              \
        _Pragma("omp simd reduction(+ : sum)") for (ptrdiff_t i = 0; i < columns; i++) { \
            REAL t = targets[i], p = predictions[i], loss, slope;                    \
            __VA_ARGS__                                                              \
            sum += loss;                                                             \
            gradients[i] = slope * (REAL)weight;                                     \
        }                                                                            \
        total += weight * sum;                                                       \
        targets += columns;                                                          \
        predictions += columns;                                                      \
        gradients += columns;                                                        \
    }                                                                                \
    return total;

static double FN(binary_crossentropy)(const REAL *targets, const REAL *predictions,
                                      const REAL *sample_weight, int from_logits,
                                      double label_smoothing, REAL *gradients, ptrdiff_t rows,
                                      ptrdiff_t columns, ptrdiff_t count) {
    const REAL keep = (REAL)(1 - label_smoothing), offset = (REAL)(0.5 * label_smoothing);
    const REAL low = (REAL)PROBABILITY_EPSILON, high = 1 - low;
    if (from_logits) {
        ELEMENTWISE_LOSS({
            t = t * keep + offset;
            REAL tail = FN(exp)(-FN(absolute)(p));
            loss = (p > 0 ? p : 0) - p * t + FN(log1p_unit)(tail);
            slope = (p < 0 ? tail : 1) / (1 + tail) - t;
        })
    } else {
        ELEMENTWISE_LOSS({
            t = t * keep + offset;
            REAL clipped = p < low ? low : p;
            clipped = clipped > high ? high : clipped;
            loss = -(t * FN(log)(clipped) + (1 - t) * FN(log1p)(-clipped));
            slope = (clipped - t) / (clipped * (1 - clipped));
            slope = clipped == p ? slope : 0;
        })
    }
}

/* Half the Poisson deviance of a target t >= 0 from e**p; *slope gets its derivative in p. */
INLINE REAL FN(deviance)(REAL t, REAL p, REAL *slope) {
    const REAL mean = FN(exp)(p);
    *slope = mean - t;
    return mean - t - t * (p - FN(log)(t > 0 ? t : 1));
}

static double FN(mean_squared_error)(const REAL *targets, const REAL *predictions,
                                     const REAL *sample_weight, REAL *gradients, ptrdiff_t rows,
                                     ptrdiff_t columns, ptrdiff_t count) {
    ELEMENTWISE_LOSS({
        REAL error = p - t;
        loss = error * error;
        slope = 2 * error;
    })
}

static double FN(mean_absolute_error)(const REAL *targets, const REAL *predictions,
                                      const REAL *sample_weight, REAL *gradients, ptrdiff_t rows,
                                      ptrdiff_t columns, ptrdiff_t count) {
    ELEMENTWISE_LOSS({
        REAL error = p - t;
        loss = FN(absolute)(error);
        slope = error > 0 ? 1 : error < 0 ? -1 : error; /* 0, and NaN */
    })
}

static double FN(huber)(const REAL *targets, const REAL *predictions, const REAL *sample_weight,
                        double delta_, REAL *gradients, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t count) {
    const REAL delta = (REAL)delta_, half = (REAL)0.5;
    ELEMENTWISE_LOSS({
        REAL error = p - t, size = FN(absolute)(error);
        loss = size <= delta ? half * error * error : delta * size - half * delta * delta;
        slope = error > delta ? delta : error;
        slope = slope < -delta ? -delta : slope;
    })
}

static double FN(poisson)(const REAL *targets, const REAL *predictions, const REAL *sample_weight,
                          REAL *gradients, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t count) {
    ELEMENTWISE_LOSS(loss = FN(deviance)(t, p, &slope);)
}
#undef ELEMENTWISE_LOSS

/* That of these four which `loss` names; `parameter` is Huber's delta. */
static double FN(regression)(int loss, const REAL *targets, const REAL *predictions,
                             const REAL *sample_weight, double parameter, REAL *gradients, ptrdiff_t rows,
                             ptrdiff_t columns, ptrdiff_t count) {
    switch (loss) {
    case MEAN_SQUARED_ERROR:
        return FN(mean_squared_error)(targets, predictions, sample_weight, gradients, rows, columns, count);
    case MEAN_ABSOLUTE_ERROR:
        return FN(mean_absolute_error)(targets, predictions, sample_weight, gradients, rows, columns, count);
    case HUBER:
        return FN(huber)(targets, predictions, sample_weight, parameter, gradients, rows, columns, count);
    default: return FN(poisson)(targets, predictions, sample_weight, gradients, rows, columns, count);
    }
}

static double FN(categorical_crossentropy)(const REAL *targets, const REAL *predictions,
                                           const REAL *sample_weight, int from_logits,
                                           double label_smoothing, REAL *gradients, ptrdiff_t rows,
                                           ptrdiff_t columns, ptrdiff_t count) {
    const REAL keep = (REAL)(1 - label_smoothing), offset = (REAL)(label_smoothing / columns);
    const REAL low = (REAL)PROBABILITY_EPSILON, high = 1 - low;
    double total = 0;
    for (ptrdiff_t b = 0; b < rows; b++) {
        double weight = (sample_weight ? (double)sample_weight[b] : 1.0) / count, sum = 0;
        if (from_logits) {
            REAL top = FN(row_maximum)(predictions, columns), mass = 0;
            REAL scale = FN(row_exp)(predictions, top, gradients, columns);
            REAL log_scale = FN(log)(scale);
#pragma omp simd reduction(+ : sum, mass)
            for (ptrdiff_t i = 0; i < columns; i++) {
                REAL t = targets[i] * keep + offset;
                mass += t;
                sum += t * (log_scale - (predictions[i] - top));
            }
            REAL factor = mass / scale;
#pragma omp simd
            for (ptrdiff_t i = 0; i < columns; i++)
                gradients[i] =
                    (gradients[i] * factor - (targets[i] * keep + offset)) * (REAL)weight;
        } else {
            REAL mass = 0, pull = 0;
#pragma omp simd reduction(+ : mass)
            for (ptrdiff_t i = 0; i < columns; i++) mass += predictions[i];
#pragma omp simd reduction(+ : sum, pull)
            for (ptrdiff_t i = 0; i < columns; i++) {
                REAL t = targets[i] * keep + offset, p = predictions[i] / mass;
                REAL clipped = p < low ? low : p;
                clipped = clipped > high ? high : clipped;
                sum -= t * FN(log)(clipped);
                REAL slope = -t / clipped;
                slope = clipped == p ? slope : 0;
                pull += slope * p;
                gradients[i] = slope;
            }
#pragma omp simd
            for (ptrdiff_t i = 0; i < columns; i++)
                gradients[i] = (gradients[i] - pull) / mass * (REAL)weight;
        }
        total += weight * sum;
        targets += columns;
        predictions += columns;
        gradients += columns;
    }
    return total;
}

#if HAS_SHORT_ROWS
/* The cross-entropy of a short row of logits, and its gradient times `weight`. */
INLINE double FN(short_crossentropy)(const REAL *logits, ptrdiff_t label, REAL keep, REAL offset,
                                     double weight, REAL *gradients, ptrdiff_t columns) {
    const __mmask16 lanes = (__mmask16)((1u << columns) - 1);
    REAL top;
    double others = 0;
    const __m512 x = _mm512_maskz_loadu_ps(lanes, logits), powers = FN(short_exp)(lanes, x, &top);
    const REAL scale = _mm512_reduce_add_ps(powers);
    const double log_scale = FN(log)(scale);
    if (offset != 0) {
        const __m512 below = _mm512_sub_ps(x, _mm512_set1_ps(top));
        others = columns * log_scale - _mm512_mask_reduce_add_ps(lanes, below);
    }
    const __m512 g = _mm512_fmsub_ps(powers, _mm512_set1_ps((REAL)weight / scale),
                                     _mm512_set1_ps(offset * (REAL)weight));
    _mm512_mask_storeu_ps(
        gradients, lanes,
        _mm512_mask_sub_ps(g, (__mmask16)(1u << label), g, _mm512_set1_ps(keep * (REAL)weight)));
    return keep * (log_scale - (logits[label] - top)) + offset * others;
}
#else
INLINE double FN(short_crossentropy)(const REAL *logits, ptrdiff_t label, REAL keep, REAL offset,
                                     double weight, REAL *gradients, ptrdiff_t columns) {
    (void)logits, (void)label, (void)keep, (void)offset, (void)weight, (void)gradients, (void)columns;
    return 0;
}
#endif

static double FN(sparse_categorical_crossentropy)(const int64_t *targets, const REAL *predictions,
                                                  const REAL *sample_weight, int from_logits,
                                                  double label_smoothing, REAL *gradients,
                                                  ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t count) {
    const REAL keep = (REAL)(1 - label_smoothing), offset = (REAL)(label_smoothing / columns);
    const REAL low = (REAL)PROBABILITY_EPSILON, high = 1 - low;
    double total = 0;
    for (ptrdiff_t b = 0; b < rows; b++) {
        double weight = (sample_weight ? (double)sample_weight[b] : 1.0) / count, loss;
        const ptrdiff_t label = (ptrdiff_t)targets[b];
        if (HAS_SHORT_ROWS && from_logits && columns <= LANES) {
            loss = FN(short_crossentropy)(predictions, label, keep, offset, weight, gradients, columns);
        } else if (from_logits) {
            REAL top = FN(row_maximum)(predictions, columns);
            REAL scale = FN(row_exp)(predictions, top, gradients, columns);
            double log_scale = FN(log)(scale), others = 0;
            if (offset != 0)
#pragma omp simd reduction(+ : others)
                for (ptrdiff_t i = 0; i < columns; i++)
                    others += log_scale - (predictions[i] - top);
            loss = keep * (log_scale - (predictions[label] - top)) + offset * others;
            REAL factor = (REAL)weight / scale, less = offset * (REAL)weight;
#pragma omp simd
            for (ptrdiff_t i = 0; i < columns; i++) gradients[i] = gradients[i] * factor - less;
            gradients[label] -= keep * (REAL)weight;
        } else {
            REAL mass = 0, pull = 0;
            double sum = 0;
#pragma omp simd reduction(+ : mass)
            for (ptrdiff_t i = 0; i < columns; i++) mass += predictions[i];
#pragma omp simd reduction(+ : sum, pull)
            for (ptrdiff_t i = 0; i < columns; i++) {
                REAL t = (i == label ? keep : 0) + offset, p = predictions[i] / mass;
                REAL clipped = p < low ? low : p;
                clipped = clipped > high ? high : clipped;
                sum -= t * FN(log)(clipped);
                REAL slope = -t / clipped;
                slope = clipped == p ? slope : 0;
                pull += slope * p;
                gradients[i] = slope;
            }
#pragma omp simd
            for (ptrdiff_t i = 0; i < columns; i++)
                gradients[i] = (gradients[i] - pull) / mass * (REAL)weight;
            loss = sum;
        }
        total += weight * loss;
        predictions += columns;
        gradients += columns;
    }
    return total;
}

/* ------------------------------------------------------------------------------- dropout */

#define DROPOUT_UNITS 256

/* What dropout multiplies rows row.. and units unit.. of a layer by: 1 / (1 - rate), or 0. `factors`
 * points to where the first of them goes; the first row is a multiple of 8. */
static void FN(dropout_factors)(double rate, uint64_t seed, uint64_t step, uint64_t layer,
                                ptrdiff_t row, ptrdiff_t last_row, ptrdiff_t unit,
                                ptrdiff_t last_unit, REAL *factors, ptrdiff_t stride) {
    const REAL scale = rate < 1 ? (REAL)(1 / (1 - rate)) : 0;
    const int32_t threshold = (int32_t)floor(rate * 65536 + 0.5);
    uint32_t drawn[4][DROPOUT_UNITS] __attribute__((aligned(64)));
    for (; unit < last_unit; unit += DROPOUT_UNITS, factors += DROPOUT_UNITS) {
        const ptrdiff_t count = last_unit - unit < DROPOUT_UNITS ? last_unit - unit : DROPOUT_UNITS;
        for (ptrdiff_t group = row; group < last_row; group += 8) {
            for (ptrdiff_t u = 0; u < count; u += WORDS) {
                words zero = {0}, units = zero;
                for (int i = 0; i < WORDS; i++) units[i] = (uint32_t)(unit + u + i);
                words word[4] = {units, zero + (uint32_t)(group / 8), zero + (uint32_t)step,
                                 zero + (uint32_t)layer};
                philox_words(word, seed);
                for (int w = 0; w < 4; w++) *(words *)(drawn[w] + u) = word[w];
            }
            const ptrdiff_t rows = last_row - group < 8 ? last_row - group : 8;
            for (ptrdiff_t r = 0; r < rows; r++) {
                const uint32_t *half = drawn[r / 2];
                const int shift = 16 * (r & 1);
                REAL *target = factors + (group - row + r) * stride;
#pragma omp simd
                for (ptrdiff_t u = 0; u < count; u++)
                    target[u] = (int32_t)((half[u] >> shift) & 0xFFFF) >= threshold ? scale : 0;
            }
        }
    }
}

static void FN(dropout)(const REAL *inputs, double rate, uint64_t seed, uint64_t step,
                        uint64_t layer, REAL *outputs, ptrdiff_t rows, ptrdiff_t units) {
    REAL factors[8 * DROPOUT_UNITS];
    for (ptrdiff_t row = 0; row < rows; row += 8)
        for (ptrdiff_t unit = 0; unit < units; unit += DROPOUT_UNITS) {
            const ptrdiff_t count = units - unit < DROPOUT_UNITS ? units - unit : DROPOUT_UNITS;
            const ptrdiff_t last_row = rows - row < 8 ? rows : row + 8;
            FN(dropout_factors)(rate, seed, step, layer, row, last_row, unit, unit + count,
                                factors, DROPOUT_UNITS);
            for (ptrdiff_t b = row; b < last_row; b++) {
                const REAL *factor = factors + (b - row) * DROPOUT_UNITS;
                const REAL *source = inputs + b * units + unit;
                REAL *target = outputs + b * units + unit;
#pragma omp simd
                for (ptrdiff_t u = 0; u < count; u++) {
                    REAL x = source[u] * factor[u];
                    target[u] = factor[u] != 0 ? x : 0; /* a dropped NaN is gone */
                }
            }
        }
}

#undef DROPOUT_UNITS

/* ------------------------------------------------------------------- optimizer updates */

/* What turns a gradient into a step; see reference.py for the formulas. */
typedef struct {
    int kind, decays;
    REAL rate, keep, take, take_2, epsilon, shrink;
} FN(rule);

/* `momentum` is also RMSprop's rho and Adam's beta_1. */
static FN(rule) FN(make_rule)(int kind, double learning_rate, double momentum, double beta_2,
                              double epsilon, int64_t step, double weight_decay) {
    double rate = learning_rate;
    if (kind == ADAM) rate *= sqrt(1 - pow(beta_2, step)) / (1 - pow(momentum, step));
    return (FN(rule)){
        .kind = kind,
        .decays = weight_decay != 0,
        .rate = (REAL)rate,
        .keep = (REAL)momentum,
        .take = (REAL)(1 - momentum),
        .take_2 = (REAL)(1 - beta_2),
        .epsilon = (REAL)epsilon,
        .shrink = (REAL)(learning_rate * weight_decay),
    };
}

/* Twice sqrt(s), s finite (of an infinite one NaN): an approximation and a Newton step, good to 2 ulp, or 4
 * by AVX2's; in double precision two steps. The unit that takes exact roots also divides, which it does in
 * an Adam step beside the products: with exact roots too a step takes up to half as long again, with
 * approximate quotients a tenth. Twice the root costs an addition only, which some processors do beside the
 * products. */
#if SINGLE && defined(__AVX512F__)
#define HAS_QUICK_ROOT 1
INLINE FN(vector) FN(twice_root)(FN(vector) s) {
    const __m512 x = (__m512)s;
    const __m512 y = _mm512_rsqrt14_ps(_mm512_max_ps(x, _mm512_set1_ps(0x1p-126f)));
    const __m512 root = _mm512_mul_ps(x, y);
    return (FN(vector))_mm512_fmadd_ps(_mm512_fnmadd_ps(root, root, x), y, _mm512_add_ps(root, root));
}
#elif defined(__AVX512F__)
#define HAS_QUICK_ROOT 1
INLINE FN(vector) FN(twice_root)(FN(vector) s) {
    const __m512d x = (__m512d)s;
    const __m512d y = _mm512_rsqrt14_pd(_mm512_max_pd(x, _mm512_set1_pd(0x1p-1022)));
    const __m512d half = _mm512_set1_pd(0.5);
    const __m512d root = _mm512_mul_pd(x, y), side = _mm512_mul_pd(y, half);
    const __m512d error = _mm512_fnmadd_pd(root, side, half);
    const __m512d better = _mm512_fmadd_pd(root, error, root), sides = _mm512_fmadd_pd(y, error, y);
    const __m512d rest = _mm512_fnmadd_pd(better, better, x);
    return (FN(vector))_mm512_fmadd_pd(rest, sides, _mm512_add_pd(better, better));
}
#elif SINGLE && defined(__AVX2__) && defined(__FMA__)
#define HAS_QUICK_ROOT 1
INLINE FN(vector) FN(twice_root)(FN(vector) s) {
    const __m256 x = (__m256)s;
    const __m256 y = _mm256_rsqrt_ps(_mm256_max_ps(x, _mm256_set1_ps(0x1p-126f)));
    const __m256 root = _mm256_mul_ps(x, y);
    return (FN(vector))_mm256_fmadd_ps(_mm256_fnmadd_ps(root, root, x), y, _mm256_add_ps(root, root));
}
#else
#define HAS_QUICK_ROOT 0
#endif

/* v / (sqrt(s) + epsilon), for the slots' second moments. */
INLINE FN(vector) FN(over_root)(FN(vector) v, FN(vector) s, REAL epsilon) {
#if HAS_QUICK_ROOT
    return (2 * v) / (FN(twice_root)(s) + 2 * epsilon);
#else
    FN(vector) quotient;
#pragma omp simd
    for (int i = 0; i < LANES; i++) quotient[i] = v[i] / (FN(square_root)(s[i]) + epsilon);
    return quotient;
#endif
}

#undef HAS_QUICK_ROOT

#if defined(__AVX2__) && !defined(__AVX512F__)
/* All bits of the first `count` lanes. */
INLINE __m256i FN(first_lanes)(int count) {
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(ones + 8 - count * (8 / LANES)));
}
#endif

/* The first `count` elements of a vector, and zeros. */
INLINE FN(vector) FN(load_part)(const REAL *source, int count) {
#if defined(__AVX512F__) && SINGLE
    return (FN(vector))_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), source);
#elif defined(__AVX512F__)
    return (FN(vector))_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), source);
#else
    if (count == LANES) return *(const FN(vector) *)source; /* of a mask in memory a compiler can't tell */
#if defined(__AVX2__) && SINGLE
    return (FN(vector))_mm256_maskload_ps(source, FN(first_lanes)(count));
#elif defined(__AVX2__)
    return (FN(vector))_mm256_maskload_pd(source, FN(first_lanes)(count));
#else
    FN(vector) part = {0};
    for (int i = 0; i < count; i++) part[i] = source[i];
    return part;
#endif
#endif
}

/* Stores the first `count` elements of a vector. */
INLINE void FN(store_part)(REAL *target, FN(vector) x, int count) {
#if defined(__AVX512F__) && SINGLE
    _mm512_mask_storeu_ps(target, (__mmask16)((1u << count) - 1), (__m512)x);
#elif defined(__AVX512F__)
    _mm512_mask_storeu_pd(target, (__mmask8)((1u << count) - 1), (__m512d)x);
#else
    if (count == LANES)
        *(FN(vector) *)target = x;
    else
#if defined(__AVX2__) && SINGLE
        _mm256_maskstore_ps(target, FN(first_lanes)(count), (__m256)x);
#elif defined(__AVX2__)
        _mm256_maskstore_pd(target, FN(first_lanes)(count), (__m256d)x);
#else
        for (int i = 0; i < count; i++) target[i] = x[i];
#endif
#endif
}

#define AT(array, i) (*(FN(vector) *)((array) + (i)))

/* One step of n parameters, n a multiple of LANES. */
INLINE void FN(apply_vectors)(const FN(rule) *rule, REAL *parameters, const REAL *gradients,
                              REAL *first, REAL *second, ptrdiff_t n) {
    /* Into registers: stores to the arrays could change what `rule` points to. */
    const REAL rate = rule->rate, keep = rule->keep, take = rule->take, take_2 = rule->take_2;
    const REAL epsilon = rule->epsilon, shrink = rule->shrink;
    if (rule->decays)
        for (ptrdiff_t i = 0; i < n; i += LANES) AT(parameters, i) -= AT(parameters, i) * shrink;
    switch (rule->kind) {
    case SGD:
        for (ptrdiff_t i = 0; i < n; i += LANES)
            AT(parameters, i) -= rate * *(const FN(vector) *)(gradients + i);
        return;
    case MOMENTUM:
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            const FN(vector) step = rate * *(const FN(vector) *)(gradients + i);
            const FN(vector) velocity = keep * AT(first, i) - step;
            AT(first, i) = velocity;
            AT(parameters, i) += velocity;
        }
        return;
    case NESTEROV:
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            const FN(vector) step = rate * *(const FN(vector) *)(gradients + i);
            const FN(vector) velocity = keep * AT(first, i) - step;
            AT(first, i) = velocity;
            AT(parameters, i) += keep * velocity - step;
        }
        return;
    case RMSPROP:
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            const FN(vector) g = *(const FN(vector) *)(gradients + i);
            const FN(vector) s = keep * AT(first, i) + take * (g * g);
            AT(first, i) = s;
            AT(parameters, i) -= FN(over_root)(rate * g, s + epsilon, 0);
        }
        return;
    case ADAM:
        for (ptrdiff_t i = 0; i < n; i += LANES) {
#if SINGLE && defined(__AVX512F__)
            /* As below; of vectors in C, GCC 12 writes the gradient to memory. */
            const __m512 g = _mm512_loadu_ps(gradients + i);
            __m512 m = _mm512_loadu_ps(first + i), v = _mm512_loadu_ps(second + i);
            m = _mm512_fmadd_ps(_mm512_sub_ps(g, m), _mm512_set1_ps(take), m);
            v = _mm512_fmadd_ps(_mm512_fmsub_ps(g, g, v), _mm512_set1_ps(take_2), v);
            _mm512_storeu_ps(first + i, m);
            _mm512_storeu_ps(second + i, v);
            AT(parameters, i) -= FN(over_root)(rate * (FN(vector))m, (FN(vector))v, epsilon);
#else
            const FN(vector) g = *(const FN(vector) *)(gradients + i);
            FN(vector) m = AT(first, i), v = AT(second, i);
            m += (g - m) * take;
            v += (g * g - v) * take_2;
            AT(first, i) = m;
            AT(second, i) = v;
            AT(parameters, i) -= FN(over_root)(rate * m, v, epsilon);
#endif
        }
        return;
    }
}

/* Parameters whose penalties single precision adds up. */
#define SUM_PART 512

/* Steps that a row of weights may wait for, and under a penalty, whose value is kept for each. */
#define MOST_IDLE 512
#define MOST_IDLE_PENALISED 32

/* Whether parameters without a gradient may wait: `idle` knows the simpler rules. */
INLINE int FN(can_idle)(int kind, double weight_decay) { return kind != NESTEROV && weight_decay == 0; }

INLINE int FN(all_equal)(FN(vector) a, FN(vector) b) {
#if defined(__AVX512F__) && SINGLE
    return !_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ);
#elif defined(__AVX512F__)
    return !_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_NEQ_UQ);
#elif defined(__AVX2__) && SINGLE
    return !_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NEQ_UQ));
#elif defined(__AVX2__)
    return !_mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_NEQ_UQ));
#else
    int equal = 1;
    for (int i = 0; i < LANES; i++) equal &= a[i] == b[i];
    return equal;
#endif
}

/* The sum of a vector's elements, in halves. */
INLINE REAL FN(total)(FN(vector) x) {
#if defined(__AVX512F__) && SINGLE
    return _mm512_reduce_add_ps((__m512)x);
#elif defined(__AVX512F__)
    return _mm512_reduce_add_pd((__m512d)x);
#elif defined(__AVX2__) && SINGLE
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#elif defined(__AVX2__)
    const __m128d half =
        _mm_add_pd(_mm256_castpd256_pd128((__m256d)x), _mm256_extractf128_pd((__m256d)x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
#else
    REAL lane[LANES];
    memcpy(lane, &x, sizeof x);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
#endif
}

/* Adam's part of `idle_vectors`, for a few vectors, since the steps of one wait for each other. */
INLINE void FN(idle_adam)(const FN(rule) *rule, const REAL *rates, int start, int stop,
                          REAL *parameters, REAL *first, REAL *second, int vectors) {
    /* Steps shrink by beta_1 / sqrt(beta_2), whatever rounding and the correction of the bias do: once
     * one is too small to change a parameter, so are all that follow. */
    const int shrinks = rule->epsilon > (REAL)1e-12 &&
                        (1 - rule->take) * (REAL)1.05 < (REAL)0.99 * FN(square_root)(1 - rule->take_2);
    FN(vector) w[4], m[4], v[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++)
        w[i] = AT(parameters, i * LANES), m[i] = AT(first, i * LANES), v[i] = AT(second, i * LANES);
    int moves = 1;
    for (int s = start; s < stop; s++) {
        moves |= rates[s] > (REAL)1.05 * rates[s > start ? s - 1 : s];
        int moved = 0;
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            m[i] -= m[i] * rule->take;
            v[i] -= v[i] * rule->take_2;
            if (!moves) continue;
            const FN(vector) before = w[i];
            w[i] -= FN(over_root)(rates[s] * m[i], v[i], rule->epsilon);
            moved |= !FN(all_equal)(w[i], before);
        }
        moves = moved || !shrinks;
    }
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++)
        AT(parameters, i * LANES) = w[i], AT(first, i * LANES) = m[i], AT(second, i * LANES) = v[i];
}

/* Steps `start` to `stop` of n parameters whose gradients are zero, n a multiple of LANES; rates[s] is the
 * rate of step s. Bit for bit what `apply` makes of zeros, with the parameters in registers for all the
 * steps. */
INLINE void FN(idle_vectors)(const FN(rule) *rule, const REAL *rates, int start, int stop,
                             REAL *parameters, REAL *first, REAL *second, ptrdiff_t n) {
    const FN(rule) r = *rule;
    if (r.kind == ADAM) {
        ptrdiff_t i = 0;
        for (; i + 4 * LANES <= n; i += 4 * LANES)
            FN(idle_adam)(&r, rates, start, stop, parameters + i, first + i, second + i, 4);
        for (; i < n; i += LANES)
            FN(idle_adam)(&r, rates, start, stop, parameters + i, first + i, second + i, 1);
        return;
    }
    for (ptrdiff_t i = 0; i < n && r.kind != SGD; i += LANES) { /* of SGD nothing changes */
        FN(vector) w = AT(parameters, i), slot = AT(first, i);
        for (int s = start; s < stop; s++) {
            slot *= r.keep;
            if (r.kind == MOMENTUM) w += slot;
        }
        AT(parameters, i) = w;
        AT(first, i) = slot;
    }
}

/* The last few elements of the arrays that there are, to copies or back. */
INLINE void FN(copy_rest)(REAL *const arrays[3], ptrdiff_t whole, ptrdiff_t rest,
                          REAL copies[4][LANES], int out) {
    for (int a = 0; a < 3; a++)
        if (arrays[a])
            memcpy(out ? copies[a] : arrays[a] + whole, out ? arrays[a] + whole : copies[a],
                   rest * sizeof(REAL));
}

/* One step of any number of parameters; `first` and `second` are the optimizer's slots, NULL where it
 * has none. */
INLINE void FN(apply)(const FN(rule) *rule, REAL *parameters, const REAL *gradients, REAL *first,
                      REAL *second, ptrdiff_t n) {
    const ptrdiff_t whole = n / LANES * LANES, rest = n - whole;
    FN(apply_vectors)(rule, parameters, gradients, first, second, whole);
    if (!rest) return;
    /* The last few as a vector of their own, in copies: beyond them lies something else. */
    REAL copies[4][LANES] __attribute__((aligned(64))) = {{0}};
    REAL *const arrays[3] = {parameters, first, second};
    FN(copy_rest)(arrays, whole, rest, copies, 1);
    memcpy(copies[3], gradients + whole, rest * sizeof(REAL));
    FN(apply_vectors)(rule, copies[0], copies[3], copies[1], copies[2], LANES);
    FN(copy_rest)(arrays, whole, rest, copies, 0);
}

/* The same for `idle_vectors`. */
INLINE void FN(idle)(const FN(rule) *rule, const REAL *rates, int start, int stop,
                     REAL *parameters, REAL *first, REAL *second, ptrdiff_t n) {
    const ptrdiff_t whole = n / LANES * LANES, rest = n - whole;
    FN(idle_vectors)(rule, rates, start, stop, parameters, first, second, whole);
    if (!rest) return;
    REAL copies[4][LANES] __attribute__((aligned(64))) = {{0}};
    REAL *const arrays[3] = {parameters, first, second};
    FN(copy_rest)(arrays, whole, rest, copies, 1);
    FN(idle_vectors)(rule, rates, start, stop, copies[0], copies[1], copies[2], LANES);
    FN(copy_rest)(arrays, whole, rest, copies, 0);
}

/* gradients (n,) += those of the penalties l1 * |w| + l2 * w**2; returns these, added up in single precision
 * where that is REAL. */
INLINE REAL FN(penalise)(const REAL *parameters, REAL l1, REAL l2, REAL *gradients, ptrdiff_t n) {
    const REAL pull = 2 * l2;
    REAL absolutes = 0, squares = 0;
    if (l1 == 0)
#pragma omp simd reduction(+ : squares)
        for (ptrdiff_t i = 0; i < n; i++) {
            gradients[i] += pull * parameters[i];
            squares += parameters[i] * parameters[i];
        }
    else
#pragma omp simd reduction(+ : absolutes, squares)
        for (ptrdiff_t i = 0; i < n; i++) {
            const REAL w = parameters[i];
            const REAL sign = w > 0 ? 1 : w < 0 ? -1 : w; /* 0, and NaN */
            gradients[i] += l1 * sign + pull * w;
            absolutes += FN(absolute)(w);
            squares += w * w;
        }
    return l1 * absolutes + (l2 == 0 ? 0 : l2 * squares);
}

/* Adam's step of a vector of parameters under an L2 penalty; adds their squares to `squares`. */
INLINE void FN(adam_decayed)(const FN(rule) *rule, REAL rate, REAL pull, FN(vector) *w, FN(vector) g,
                             FN(vector) *m, FN(vector) *v, FN(vector) *squares) {
    g += pull * *w;
    *squares += *w * *w;
    *m += (g - *m) * rule->take;
    *v += (g * g - *v) * rule->take_2;
    *w -= FN(over_root)(rate * *m, *v, rule->epsilon);
}

/* One step of `rows` of n parameters each from gradients that those of the penalties are added to; adds each
 * row's penalties to one of `penalties`, unless NULL. */
INLINE void FN(apply_penalised)(const FN(rule) *rule, REAL *parameters, REAL *gradients, REAL *first,
                                REAL *second, ptrdiff_t rows, ptrdiff_t n, REAL l1, REAL l2, REAL *penalties) {
    if (!penalties) n *= rows, rows = 1;
    if (rule->kind == ADAM && !rule->decays && l1 == 0) {
        /* In one pass: the optimizer's alone waits for memory. A part of a vector is computed as a whole one
         * is, so that it does not matter where rows are cut. */
        const FN(rule) r = *rule;
        for (ptrdiff_t p = 0; p < rows; p++) {
            const ptrdiff_t start = p * n, whole = start + n / LANES * LANES;
            const int left = (int)(start + n - whole);
            FN(vector) squares = {0};
            for (ptrdiff_t i = start; i < whole; i += LANES) {
                FN(vector) w = AT(parameters, i), m = AT(first, i), v = AT(second, i);
                FN(adam_decayed)(&r, r.rate, 2 * l2, &w, AT(gradients, i), &m, &v, &squares);
                AT(first, i) = m;
                AT(second, i) = v;
                AT(parameters, i) = w;
            }
            if (left) {
                FN(vector) w = FN(load_part)(parameters + whole, left);
                FN(vector) m = FN(load_part)(first + whole, left), v = FN(load_part)(second + whole, left);
                FN(adam_decayed)(&r, r.rate, 2 * l2, &w, FN(load_part)(gradients + whole, left), &m, &v, &squares);
                FN(store_part)(first + whole, m, left);
                FN(store_part)(second + whole, v, left);
                FN(store_part)(parameters + whole, w, left);
            }
            if (penalties) penalties[p] += l2 * FN(total)(squares);
        }
        return;
    }
    for (ptrdiff_t p = 0; p < rows; p++)
        for (ptrdiff_t i = p * n; i < (p + 1) * n; i += SUM_PART) {
            const ptrdiff_t left = (p + 1) * n - i;
            const REAL penalty =
                FN(penalise)(parameters + i, l1, l2, gradients + i, left < SUM_PART ? left : SUM_PART);
            if (penalties) penalties[p] += penalty;
        }
    FN(apply)(rule, parameters, gradients, first, second, rows * n);
}

/* Adam's part of `idle_penalised` for l2 alone; adds the squares of the parameters of step s to squares[s]. */
INLINE void FN(idle_adam_decayed)(const FN(rule) *rule, const REAL *rates, int start, int stop,
                                  REAL *parameters, REAL *first, REAL *second, REAL l2, int vectors,
                                  FN(vector) *squares) {
    FN(vector) w[8], m[8], v[8];
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++)
        w[i] = AT(parameters, i * LANES), m[i] = AT(first, i * LANES), v[i] = AT(second, i * LANES);
    for (int s = start; s < stop; s++) {
        FN(vector) sum = squares[s];
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++)
            FN(adam_decayed)(rule, rates[s], 2 * l2, &w[i], (FN(vector)){0}, &m[i], &v[i], &sum);
        squares[s] = sum;
    }
#pragma GCC unroll 8
    for (int i = 0; i < vectors; i++)
        AT(parameters, i * LANES) = w[i], AT(first, i * LANES) = m[i], AT(second, i * LANES) = v[i];
}

/* `idle` where the gradients are those of penalties; those of step s are added to penalties[s * stride]. */
INLINE void FN(idle_penalised)(const FN(rule) *rule, const REAL *rates, int start, int stop,
                               REAL *parameters, REAL *first, REAL *second, ptrdiff_t n, REAL l1, REAL l2,
                               REAL *penalties, ptrdiff_t stride) {
    FN(rule) r = *rule;
    ptrdiff_t i = 0;
    if (r.kind == ADAM && l1 == 0 && n >= LANES) {
        FN(vector) squares[MOST_IDLE_PENALISED];
        memset(squares + start, 0, (stop - start) * sizeof *squares);
        for (; i + 8 * LANES <= n; i += 8 * LANES)
            FN(idle_adam_decayed)(&r, rates, start, stop, parameters + i, first + i, second + i, l2, 8, squares);
        for (; i + LANES <= n; i += LANES)
            FN(idle_adam_decayed)(&r, rates, start, stop, parameters + i, first + i, second + i, l2, 1, squares);
        for (int s = start; s < stop; s++) penalties[s * stride] += l2 * FN(total)(squares[s]);
    }
    for (; i < n; i += SUM_PART) {
        const ptrdiff_t part = n - i < SUM_PART ? n - i : SUM_PART;
        for (int s = start; s < stop; s++) {
            REAL gradients[SUM_PART] __attribute__((aligned(64)));
            memset(gradients, 0, part * sizeof *gradients);
            r.rate = rates[s];
            penalties[s * stride] += FN(penalise)(parameters + i, l1, l2, gradients, part);
            FN(apply)(&r, parameters + i, gradients, first ? first + i : NULL, second ? second + i : NULL,
                      part);
        }
    }
}

#undef AT

/* The whole of `apply`, for arrays. */
static void FN(update)(int kind, REAL *parameters, const REAL *gradients, REAL *first, REAL *second,
                       double learning_rate, double momentum, double beta_2, double epsilon,
                       int64_t step, double weight_decay, ptrdiff_t n) {
    const FN(rule) rule =
        FN(make_rule)(kind, learning_rate, momentum, beta_2, epsilon, step, weight_decay);
    const float_mode mode = flush_subnormals();
    FN(apply)(&rule, parameters, gradients, first, second, n);
    restore_subnormals(mode);
}

/* The same of whole arrays; the penalties added up in double precision. */
static double FN(add_penalty)(const REAL *parameters, double l1, double l2, REAL *gradients,
                              ptrdiff_t n) {
    double size = 0, square = 0;
#pragma omp simd reduction(+ : size, square)
    for (ptrdiff_t i = 0; i < n; i++) {
        size += (double)FN(absolute)(parameters[i]);
        square += (double)parameters[i] * (double)parameters[i];
    }
    FN(penalise)(parameters, (REAL)l1, (REAL)l2, gradients, n);
    return l1 * size + l2 * square;
}

/* ------------------------------------------------------------------------------ features */

static void FN(quadratic_features)(const REAL *inputs, REAL *outputs, ptrdiff_t rows,
                                   ptrdiff_t count) {
    for (ptrdiff_t b = 0; b < rows; b++, inputs += count) {
        for (ptrdiff_t i = 0; i < count; i++) *outputs++ = inputs[i];
        for (ptrdiff_t i = 0; i < count; i++) *outputs++ = inputs[i] * inputs[i];
        for (ptrdiff_t i = 0; i < count; i++)
            for (ptrdiff_t j = i + 1; j < count; j++) *outputs++ = inputs[i] * inputs[j];
        *outputs++ = 1;
    }
}
