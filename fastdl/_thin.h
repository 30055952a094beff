/* Training of thin networks for one REAL: all layers, the inputs among them, of a few units.
 *
 * The engine's vectors run along the units, and with four of those most lanes are empty. Here they run
 * along the rows of the batch: an array of a layer is (units, stride), of a block of rows whose arrays
 * all stay in the first-level cache, and a weight meets a whole vector at a time.
 *
 * The last vector of a batch repeats the last row in the lanes that are left over. What these lanes
 * hold is therefore as finite as the rest, and their gradients and losses are multiplied by zero.
 *
 * One thread does it all: a step takes microseconds.
 */

#define V FN(vector)
#define MASK FN(word_vector)
#define AT(array, i) (*(V *)((array) + (i)))
#define EACH _Pragma("GCC unroll 8") for (int v = 0; v < n; v++)

#define THIN_UNITS 16
#define THIN_BYTES 28672      /* of a block's arrays: a first-level cache of 32 KB, less the sums */
#define THIN_VECTORS 64       /* the most in a block: as many factors of 2 as a float holds, see below */
#define ROWS_DRAWN 8          /* dropout draws for as many rows together */

/* Sums that stay in registers while a block's rows go by. */
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define THIN_SUMS 16
#else
#define THIN_SUMS 8
#endif

typedef struct {
    ptrdiff_t inputs, outputs; /* units */
    int activation;
    double slope, dropout;
    ptrdiff_t offset; /* of weights (inputs, outputs) in the flat arrays; bias (outputs,) follows */
    REAL *activated;  /* (outputs, stride) the activation's results, and then the gradients in what it took */
    REAL *taken;      /* what it took, for those whose derivative asks; softmax keeps gradients there */
    REAL *fed_on;     /* results after dropout; the same as activated without */
    REAL *factors;    /* what dropout multiplies by; NULL without */
} FN(thin_layer);

typedef struct {
    const plan *p;
    FN(thin_layer) layer[MOST_LAYERS];
    ptrdiff_t count; /* parameters */
    /* a block's arrays */
    ptrdiff_t stride;
    REAL *inputs;  /* (features, stride) */
    REAL *targets; /* (outputs, stride); of classes, 1 and 0 */
    REAL *labels;  /* (stride,) to count right rows against, or NULL */
    REAL *weights; /* (stride,) of the samples, or NULL */
    int same, held; /* each step's one block is all of the data in its order; it is there already */
    /* of the batch */
    ptrdiff_t rows;
    REAL scale;      /* of each loss in the batch's */
    V *sums;         /* (count,) the gradient of each parameter, lane by lane */
    REAL *gradients; /* (count,) */
    double loss, right;
} FN(thin);

INLINE V FN(thin_choose)(MASK mask, V a, V b) { return (V)((mask & (MASK)a) | (~mask & (MASK)b)); }

INLINE double FN(thin_total)(V x) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < LANES; i++) total += (double)x[i];
    return total;
}

/* Runs call(n, i) for groups of n vectors from row i on that make up `vectors`. (Groups of nearly equal
 * size, any up to eight, took as long and twice the code.) */
#define IN_GROUPS(vectors, call)                                                       \
    do {                                                                               \
        ptrdiff_t i = 0, left_ = (vectors);                                            \
        for (; left_ >= 8; left_ -= 8, i += 8 * LANES) call(8, i);                     \
        if (left_ & 4) { call(4, i); i += 4 * LANES; }                                 \
        if (left_ & 2) { call(2, i); i += 2 * LANES; }                                 \
        if (left_ & 1) call(1, i);                                                     \
    } while (0)

/* x = e**x for any number of vectors. */
static void FN(thin_exp)(V *x, ptrdiff_t vectors) {
#define EXP(n, i) FN(v_exp)(n, 1, x + i / LANES)
    IN_GROUPS(vectors, EXP);
#undef EXP
}

/* ------------------------------------------------------------------------------- a block's rows */

/* target (columns, stride) = some columns of rows of source, which are `width` apart. */
INLINE void FN(thin_take)(int columns, const REAL *restrict source, ptrdiff_t width,
                          const int64_t *order, ptrdiff_t first, ptrdiff_t rows,
                          REAL *restrict target, ptrdiff_t stride) {
    for (ptrdiff_t b = 0; b < rows; b++) {
        const REAL *row = source + (order ? order[b] : first + b) * width;
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) target[c * stride + b] = row[c];
    }
}

/* The same for up to LANES columns, from `column` on, whole vectors of rows transposed in registers. `n`
 * rows are there to read. */
static void FN(thin_transpose)(const REAL *source, ptrdiff_t n, ptrdiff_t width, ptrdiff_t column,
                               const int64_t *order, ptrdiff_t first, ptrdiff_t rows, REAL *target,
                               ptrdiff_t stride) {
    const ptrdiff_t columns = width - column < LANES ? width - column : LANES;
    for (ptrdiff_t b = 0; b < rows; b += LANES) {
        V row[LANES];
        for (int i = 0; i < LANES; i++) {
            const ptrdiff_t place = b + i < rows ? b + i : rows - 1;
            const ptrdiff_t start = (order ? order[place] : first + place) * width + column;
            if (start + LANES <= n * width) {
                row[i] = AT(source, start);
            } else { /* the rest of the vector lies behind the array */
                REAL part[LANES] = {0};
                memcpy(part, source + start, columns * sizeof(REAL));
                row[i] = AT(part, 0);
            }
        }
        FN(transpose_vectors)(row);
        for (int c = 0; c < columns; c++) AT(target, c * stride + b) = row[c];
    }
}

/* target (width, stride) = `rows` rows of source (n, width), the last one repeated to a whole vector. */
static void FN(thin_gather)(const REAL *source, ptrdiff_t n, ptrdiff_t width, const int64_t *order,
                            ptrdiff_t first, ptrdiff_t rows, REAL *target, ptrdiff_t stride) {
    /* Columns that are all there is, of rows in their order, are taken by vectors: the compiler sees
     * how they alternate. */
#define TAKE(count)                                                                           \
    if (!order && width == count)                                                             \
        FN(thin_take)(count, source, count, NULL, first, rows, target, stride);               \
    else                                                                                      \
        FN(thin_take)(count, source + c, width, order, first, rows, target + c * stride, stride)
    for (ptrdiff_t c = 0, taken; c < width; c += taken) {
        taken = width - c;
        if (LANES > 4 && taken > 4) {
            FN(thin_transpose)(source, n, width, c, order, first, rows, target + c * stride, stride);
            taken = taken < LANES ? taken : LANES;
            continue;
        }
        switch (taken) {
        case 1: TAKE(1); break;
        case 2: TAKE(2); break;
        case 3: TAKE(3); break;
        default: taken = 4; TAKE(4);
        }
    }
#undef TAKE
    for (ptrdiff_t c = 0; c < width; c++)
        for (ptrdiff_t b = rows; b % LANES; b++) target[c * stride + b] = target[c * stride + rows - 1];
}

/* All that belongs to a block of rows: those that `order` names, or those from `first` on. */
static void FN(thin_block)(const FN(thin) *t, const int64_t *order, ptrdiff_t first, ptrdiff_t rows) {
    const plan *p = t->p;
    const ptrdiff_t outputs = t->layer[p->layers - 1].outputs, stride = t->stride;
    FN(thin_gather)(p->inputs, p->n, t->layer[0].inputs, order, first, rows, t->inputs, stride);
    if (p->loss != SPARSE_CATEGORICAL_CROSSENTROPY)
        FN(thin_gather)(p->targets, p->n, outputs, order, first, rows, t->targets, stride);
    if (t->weights)
        FN(thin_gather)(p->sample_weight, p->n, 1, order, first, rows, t->weights, stride);
    const int64_t *classes = p->loss == SPARSE_CATEGORICAL_CROSSENTROPY ? p->targets : NULL;
    if (!classes && !t->labels) return;
    for (ptrdiff_t b = 0; b < rows || b % LANES; b++) {
        const ptrdiff_t place = b < rows ? b : rows - 1;
        const ptrdiff_t sample = order ? order[place] : first + place;
        if (t->labels) t->labels[b] = (REAL)p->labels[sample];
        for (ptrdiff_t j = 0; classes && j < outputs; j++)
            t->targets[j * stride + b] = classes[sample] == j;
    }
}

/* ------------------------------------------------------------------------------------- forward */

/* Stores the activation's results for n vectors of what it takes. */
INLINE void FN(thin_activate)(int n, const FN(thin_layer) *y, ptrdiff_t at, V *x) {
    switch (y->activation) {
    case LINEAR:
    case SOFTMAX: /* these two look at all units, later */
    case LOG_SOFTMAX: break;
    case RELU: EACH x[v] = FN(v_maximum)(FN(v_all)(0), x[v]); break;
    case TANH: FN(v_tanh)(n, V_ALONE, x); break;
    case SIGMOID: FN(v_sigmoid)(n, V_ALONE, x); break;
    default:
        EACH AT(y->taken, at + v * LANES) = x[v];
        FN(activation_forward)(y->taken + at, y->activation, y->slope, y->activated + at, 1, n * LANES);
        return;
    }
    EACH AT(y->activated, at + v * LANES) = x[v];
}

/* A layer's results for n vectors of rows from `i` on. */
INLINE void FN(thin_units)(int n, const FN(thin) *t, const FN(thin_layer) *y, const REAL *inputs,
                           ptrdiff_t i) {
    const ptrdiff_t stride = t->stride, outputs = y->outputs;
    const REAL *weights = (const REAL *)t->p->parameters + y->offset;
    const REAL *bias = weights + y->inputs * outputs;
    for (ptrdiff_t j = 0; j < outputs; j++) {
        V x[VECTORS_AT_ONCE];
        EACH x[v] = FN(v_all)(bias[j]);
        for (ptrdiff_t k = 0; k < y->inputs; k++) {
            const REAL weight = weights[k * outputs + j];
            EACH x[v] += weight * AT(inputs, k * stride + i + v * LANES);
        }
        FN(thin_activate)(n, y, j * stride + i, x);
    }
}

/* Softmax, or its logarithm, of the linear results in activated. */
static void FN(thin_softmax)(const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t vectors) {
    const ptrdiff_t stride = t->stride, units = y->outputs;
    for (ptrdiff_t i = 0; i < vectors * LANES; i += LANES) {
        V x[THIN_UNITS], power[THIN_UNITS], top = AT(y->activated, i), sum = {0};
        for (ptrdiff_t j = 1; j < units; j++) top = FN(v_maximum)(top, AT(y->activated, j * stride + i));
        for (ptrdiff_t j = 0; j < units; j++) x[j] = power[j] = AT(y->activated, j * stride + i) - top;
        FN(thin_exp)(power, units);
        for (ptrdiff_t j = 0; j < units; j++) sum += power[j];
        if (y->activation == SOFTMAX) {
            FN(v_reciprocal)(1, &sum);
            for (ptrdiff_t j = 0; j < units; j++) AT(y->activated, j * stride + i) = power[j] * sum;
        } else {
#pragma omp simd
            for (int lane = 0; lane < LANES; lane++) sum[lane] = FN(log)(sum[lane]);
            for (ptrdiff_t j = 0; j < units; j++) AT(y->activated, j * stride + i) = x[j] - sum;
        }
    }
}

/* Dropout of rows row, row + 1, ... of the batch in layer l. */
static void FN(thin_dropout)(const FN(thin) *t, int l, uint64_t iteration, ptrdiff_t row,
                             ptrdiff_t vectors) {
    const FN(thin_layer) *y = &t->layer[l];
    const ptrdiff_t stride = t->stride, units = y->outputs;
    REAL factors[ROWS_DRAWN * THIN_UNITS];
    for (ptrdiff_t i = 0; i < vectors * LANES; i += ROWS_DRAWN) {
        const ptrdiff_t left = vectors * LANES - i, rows = left < ROWS_DRAWN ? left : ROWS_DRAWN;
        FN(dropout_factors)(y->dropout, t->p->seed, iteration, l, row + i, row + i + rows, 0, units,
                            factors, units);
        for (ptrdiff_t j = 0; j < units; j++)
            for (ptrdiff_t b = 0; b < rows; b++) {
                const ptrdiff_t at = j * stride + i + b;
                y->factors[at] = factors[b * units + j];
                y->fed_on[at] = y->activated[at] * y->factors[at];
            }
    }
}

static void FN(thin_forward)(const FN(thin) *t, uint64_t iteration, ptrdiff_t row, ptrdiff_t vectors) {
    const REAL *inputs = t->inputs;
    for (int l = 0; l < t->p->layers; l++) {
        const FN(thin_layer) *y = &t->layer[l];
#define UNITS(n, i) FN(thin_units)(n, t, y, inputs, i)
        IN_GROUPS(vectors, UNITS);
#undef UNITS
        if (y->activation >= SOFTMAX) FN(thin_softmax)(t, y, vectors);
        if (y->factors) FN(thin_dropout)(t, l, iteration, row, vectors);
        inputs = y->fed_on;
    }
}

/* ------------------------------------------------------------------------------------ backward */

/* Takes n vectors of gradients in the results of unit j for rows from `i` on: multiplies them by the
 * activation's derivative, stores them in place of the results and adds up the bias's gradient. */
INLINE void FN(thin_pass)(int n, const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t j, ptrdiff_t i,
                          V *g) {
    const ptrdiff_t at = j * t->stride + i;
    REAL *activated = y->activated + at;
    const V one = FN(v_all)(1);
    switch (y->activation) {
    case LINEAR: break;
    case RELU: EACH g[v] *= (V)((MASK)(AT(activated, v * LANES) > 0) & (MASK)one); break;
    case TANH:
        EACH {
            const V a = AT(activated, v * LANES);
            g[v] *= one - a * a;
        }
        break;
    case SIGMOID:
        EACH {
            const V a = AT(activated, v * LANES);
            g[v] *= a * (one - a);
        }
        break;
    case SOFTMAX:
    case LOG_SOFTMAX: EACH AT(y->taken, at + v * LANES) = g[v]; return;
    default: {
        REAL copy[VECTORS_AT_ONCE * LANES];
        EACH AT(copy, v * LANES) = g[v];
        FN(activation_backward)(y->taken + at, activated, copy, y->activation, y->slope, copy, 1,
                                n * LANES);
        EACH g[v] = AT(copy, v * LANES);
    }
    }
    V *sum = t->sums + y->offset + y->inputs * y->outputs + j;
    EACH AT(activated, v * LANES) = g[v];
    V total = g[0];
#pragma GCC unroll 8
    for (int v = 1; v < n; v++) total += g[v];
    *sum += total;
}

/* The same for all units where the activation is softmax or its logarithm, from gradients in `taken`. */
static void FN(thin_softmax_pass)(const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t vectors) {
    const ptrdiff_t stride = t->stride, units = y->outputs;
    V *sums = t->sums + y->offset + y->inputs * units;
    for (ptrdiff_t i = 0; i < vectors * LANES; i += LANES) {
        V result[THIN_UNITS], sum = {0};
        for (ptrdiff_t j = 0; j < units; j++) {
            result[j] = AT(y->activated, j * stride + i);
            sum += AT(y->taken, j * stride + i) * (y->activation == SOFTMAX ? result[j] : FN(v_all)(1));
        }
        if (y->activation == LOG_SOFTMAX) FN(thin_exp)(result, units);
        for (ptrdiff_t j = 0; j < units; j++) {
            const V g = AT(y->taken, j * stride + i);
            const V passed = y->activation == SOFTMAX ? result[j] * (g - sum) : g - result[j] * sum;
            AT(y->activated, j * stride + i) = passed;
            sums[j] += passed;
        }
    }
}

/* From the gradients of layer l + 1 to those of layer l, for n vectors of rows from `i` on. */
INLINE void FN(thin_backward)(int n, const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t i) {
    const FN(thin_layer) *next = y + 1;
    const ptrdiff_t stride = t->stride;
    const REAL *weights = (const REAL *)t->p->parameters + next->offset;
    for (ptrdiff_t j = 0; j < y->outputs; j++, weights += next->outputs) {
        V g[VECTORS_AT_ONCE];
        EACH g[v] = weights[0] * AT(next->activated, i + v * LANES);
        for (ptrdiff_t k = 1; k < next->outputs; k++)
            EACH g[v] += weights[k] * AT(next->activated, k * stride + i + v * LANES);
        if (y->factors) EACH g[v] *= AT(y->factors, j * stride + i + v * LANES);
        FN(thin_pass)(n, t, y, j, i, g);
    }
}

/* ---------------------------------------------------------------------------------------- loss */

/* How many of the block's rows have their largest output at the label, the first of equals. */
static double FN(thin_right)(const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t vectors, MASK last) {
    MASK right = {0};
    for (ptrdiff_t i = 0; i < vectors * LANES; i += LANES) {
        V best = AT(y->activated, i), place = {0};
        for (ptrdiff_t j = 1; j < y->outputs; j++) {
            const V output = AT(y->activated, j * t->stride + i);
            const MASK larger = (MASK)(output > best);
            best = FN(thin_choose)(larger, output, best);
            place = FN(thin_choose)(larger, FN(v_all)((REAL)j), place);
        }
        MASK hit = (MASK)(place == AT(t->labels, i));
        right -= i == (vectors - 1) * LANES ? hit & last : hit;
    }
    double total = 0;
    for (int i = 0; i < LANES; i++) total += right[i];
    return total;
}

typedef struct {
    V loss;   /* scaled */
    V excess; /* the product of 1 + e**-|logit|, less 1 */
    MASK right;
} FN(thin_score);

/* Losses of output j that need no other output, for n vectors of rows from `i` on; `mask` is for the last
 * vector. */
INLINE void FN(thin_loss)(int n, const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t j, ptrdiff_t i,
                          MASK mask, FN(thin_score) *score) {
    const plan *p = t->p;
    const REAL *outputs = y->activated + j * t->stride + i, *targets = t->targets + j * t->stride + i;
    V g[VECTORS_AT_ONCE], loss[VECTORS_AT_ONCE], weight[VECTORS_AT_ONCE];
    const V zero = {0}, one = FN(v_all)(1);
    EACH weight[v] = t->weights ? t->scale * AT(t->weights, i + v * LANES) : FN(v_all)(t->scale);
    weight[n - 1] = (V)((MASK)weight[n - 1] & mask);
    if (p->loss == BINARY_CROSSENTROPY) { /* from logits */
        const REAL keep = (REAL)(1 - p->loss_parameter), offset = (REAL)(0.5 * p->loss_parameter);
        V tail[VECTORS_AT_ONCE], inverse[VECTORS_AT_ONCE];
        EACH tail[v] = FN(v_absolute)(AT(outputs, v * LANES));
        FN(v_exp)(n, -1, tail);
        EACH inverse[v] = tail[v] + 1;
        FN(v_reciprocal)(n, inverse);
        V excess = score->excess;
        EACH {
            const V z = AT(outputs, v * LANES), target = AT(targets, v * LANES);
            const MASK negative = (MASK)(z < zero), side = (MASK)(z > zero) & (MASK)one;
            const MASK hit = (MASK)((V)side == target);
            const V smooth = target * keep + offset;
            loss[v] = FN(v_maximum)(zero, z) - z * smooth;
            g[v] = FN(thin_choose)(negative, tail[v], one) * inverse[v] - smooth;
            score->right -= v == n - 1 ? hit & mask : hit;
            if (t->weights) {
#pragma omp simd
                for (int lane = 0; lane < LANES; lane++)
                    loss[v][lane] += FN(log1p_unit)(tail[v][lane]);
            } else {
                /* ln(1 + a) + ln(1 + b) = ln(1 + (a + b + a*b)): one logarithm a block. */
                const V mine = v == n - 1 ? (V)((MASK)tail[v] & mask) : tail[v];
                excess += mine * (1 + excess);
            }
        }
        score->excess = excess;
    } else if (p->loss == POISSON) {
        EACH {
            const REAL *z = outputs + v * LANES, *target = targets + v * LANES;
            REAL losses[LANES], slopes[LANES];
#pragma omp simd
            for (int lane = 0; lane < LANES; lane++)
                losses[lane] = FN(deviance)(target[lane], z[lane], &slopes[lane]);
            memcpy(&loss[v], losses, VECTOR_BYTES);
            memcpy(&g[v], slopes, VECTOR_BYTES);
        }
    } else {
        const REAL delta = (REAL)p->loss_parameter, half = (REAL)0.5;
        EACH {
            const V error = AT(outputs, v * LANES) - AT(targets, v * LANES), size = FN(v_absolute)(error);
            const MASK above = (MASK)(error > zero), below = (MASK)(error < zero);
            if (p->loss == MEAN_SQUARED_ERROR) {
                loss[v] = error * error;
                g[v] = 2 * error;
            } else if (p->loss == MEAN_ABSOLUTE_ERROR) {
                loss[v] = size;
                g[v] = FN(thin_choose)(above, one, FN(thin_choose)(below, -one, error));
            } else {
                const MASK inside = (MASK)(size <= delta);
                loss[v] = FN(thin_choose)(inside, half * error * error, delta * size - half * delta * delta);
                const V edge = FN(thin_choose)(above, FN(v_all)(delta), FN(v_all)(-delta));
                const MASK outside = (MASK)(size > delta); /* not NaN */
                g[v] = FN(thin_choose)(outside, edge, error);
            }
        }
    }
    V sum = score->loss;
    EACH {
        sum += weight[v] * loss[v];
        g[v] *= weight[v];
    }
    score->loss = sum;
    FN(thin_pass)(n, t, y, j, i, g);
}

/* Losses of logits of classes, for the vector of rows at `i`. */
INLINE V FN(thin_classes)(const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t i, V weight) {
    const ptrdiff_t units = y->outputs, stride = t->stride;
    const REAL smoothing = (REAL)(t->p->loss_parameter / units);
    const REAL keep = (REAL)(1 - t->p->loss_parameter);
    V x[THIN_UNITS], power[THIN_UNITS], top = AT(y->activated, i), sum = {0}, mass = {0}, loss = {0};
    for (ptrdiff_t j = 1; j < units; j++) top = FN(v_maximum)(top, AT(y->activated, j * stride + i));
    for (ptrdiff_t j = 0; j < units; j++) x[j] = power[j] = AT(y->activated, j * stride + i) - top;
    FN(thin_exp)(power, units);
    for (ptrdiff_t j = 0; j < units; j++) sum += power[j];
    V log_sum = sum;
#pragma omp simd
    for (int lane = 0; lane < LANES; lane++) log_sum[lane] = FN(log)(sum[lane]);
    for (ptrdiff_t j = 0; j < units; j++) {
        const V target = AT(t->targets, j * stride + i) * keep + smoothing;
        mass += target;
        loss += target * (log_sum - x[j]);
    }
    FN(v_reciprocal)(1, &sum);
    sum *= mass;
    for (ptrdiff_t j = 0; j < units; j++) {
        const V target = AT(t->targets, j * stride + i) * keep + smoothing;
        V g = (power[j] * sum - target) * weight;
        FN(thin_pass)(1, t, y, j, i, &g);
    }
    return loss * weight;
}

/* Losses of probabilities, by the functions for whole rows, for the vector of rows at `i`, of which `rows`
 * count; returns them scaled. */
static double FN(thin_probabilities)(const FN(thin) *t, const FN(thin_layer) *y, ptrdiff_t i,
                                     ptrdiff_t rows) {
    const ptrdiff_t units = y->outputs, stride = t->stride;
    REAL targets[THIN_UNITS * LANES], outputs[THIN_UNITS * LANES], gradients[THIN_UNITS * LANES];
    for (ptrdiff_t j = 0; j < units; j++)
        for (ptrdiff_t b = 0; b < rows; b++) {
            targets[b * units + j] = t->targets[j * stride + i + b];
            outputs[b * units + j] = y->activated[j * stride + i + b];
        }
    const double loss = (t->p->loss == BINARY_CROSSENTROPY ? FN(binary_crossentropy)
                                                           : FN(categorical_crossentropy))(
        targets, outputs, t->weights ? t->weights + i : NULL, 0, t->p->loss_parameter, gradients, rows,
        units, t->rows);
    for (ptrdiff_t j = 0; j < units; j++) {
        V g = {0};
        for (ptrdiff_t b = 0; b < rows; b++) g[b] = gradients[b * units + j];
        FN(thin_pass)(1, t, y, j, i, &g);
    }
    return loss;
}

/* Loss and right rows of a block of `rows` rows, and the gradients in what the last activation took. */
static void FN(thin_losses)(FN(thin) *t, ptrdiff_t rows) {
    const plan *p = t->p;
    const FN(thin_layer) *y = &t->layer[p->layers - 1];
    const ptrdiff_t vectors = (rows + LANES - 1) / LANES, whole = (vectors - 1) * LANES;
    MASK last;
    for (int lane = 0; lane < LANES; lane++) last[lane] = whole + lane < rows ? ~(WORD)0 : 0;
    const int binary = p->loss == BINARY_CROSSENTROPY;
    const int classes = p->loss == CATEGORICAL_CROSSENTROPY || p->loss == SPARSE_CATEGORICAL_CROSSENTROPY;
    if (t->labels) t->right += FN(thin_right)(t, y, vectors, last);
    FN(thin_score) score = {{0}, {0}, {0}};
    if ((binary || classes) && !p->from_logits) {
        const V half = FN(v_all)((REAL)0.5);
        for (ptrdiff_t i = 0; i <= whole; i += LANES) {
            for (ptrdiff_t j = 0; binary && j < y->outputs; j++) {
                const V output = AT(y->activated, j * t->stride + i);
                const MASK side = (MASK)(output > half) & (MASK)FN(v_all)(1);
                const MASK hit = (MASK)((V)side == AT(t->targets, j * t->stride + i));
                score.right -= i == whole ? hit & last : hit;
            }
            t->loss += FN(thin_probabilities)(t, y, i, rows - i < LANES ? rows - i : LANES);
        }
    } else if (classes) {
        for (ptrdiff_t i = 0; i <= whole; i += LANES) {
            V weight = t->weights ? t->scale * AT(t->weights, i) : FN(v_all)(t->scale);
            if (i == whole) weight = (V)((MASK)weight & last);
            score.loss += FN(thin_classes)(t, y, i, weight);
        }
    } else {
        const MASK all = ~(MASK){0};
        for (ptrdiff_t j = 0; j < y->outputs; j++) {
#define LOSS(n, i) FN(thin_loss)(n, t, y, j, i, i + n * LANES > whole ? last : all, &score)
            IN_GROUPS(vectors, LOSS);
#undef LOSS
            double logarithms = 0;
#pragma omp simd reduction(+ : logarithms)
            for (int lane = 0; lane < LANES; lane++)
                logarithms += (double)FN(log1p)(score.excess[lane]);
            t->loss += (double)t->scale * logarithms;
            score.excess = (V){0};
        }
    }
    t->loss += FN(thin_total)(score.loss);
    if (binary)
        for (int lane = 0; lane < LANES; lane++) t->right += (double)score.right[lane] / y->outputs;
    if (y->activation >= SOFTMAX) FN(thin_softmax_pass)(t, y, vectors);
}

/* ----------------------------------------------------------------------------- weight gradients */

/* sums[k, j] (+)= inputs[k] * gradients[j], lane by lane, for a number of each that the compiler knows. */
INLINE void FN(thin_tile)(int inputs, int outputs, const REAL *input, const REAL *gradient,
                          ptrdiff_t stride, ptrdiff_t vectors, V *sums, ptrdiff_t apart, int start) {
    V sum[THIN_SUMS];
#pragma GCC unroll 16
    for (int s = 0; s < inputs * outputs; s++) sum[s] = (V){0};
    for (ptrdiff_t i = 0; i < vectors * LANES; i += LANES) {
        V right[4];
#pragma GCC unroll 4
        for (int j = 0; j < outputs; j++) right[j] = AT(gradient, j * stride + i);
#pragma GCC unroll 16
        for (int k = 0; k < inputs; k++) {
            const V left = AT(input, k * stride + i);
#pragma GCC unroll 4
            for (int j = 0; j < outputs; j++) sum[k * outputs + j] += left * right[j];
        }
    }
#pragma GCC unroll 16
    for (int k = 0; k < inputs; k++)
#pragma GCC unroll 4
        for (int j = 0; j < outputs; j++) {
            V *place = sums + k * apart + j;
            *place = start ? sum[k * outputs + j] : *place + sum[k * outputs + j];
        }
}

/* How many inputs go with so many outputs. */
INLINE int FN(thin_height)(int outputs) { return outputs == 1 ? 8 : THIN_SUMS / outputs; }

/* The weight gradients of a block. */
static void FN(thin_products)(const FN(thin) *t, const FN(thin_layer) *y, const REAL *inputs,
                              ptrdiff_t vectors, int start) {
    const ptrdiff_t stride = t->stride;
    V *sums = t->sums + y->offset;
    /* Tiles of nearly equal size. */
    for (ptrdiff_t j = 0, width; j < y->outputs; j += width) {
        const ptrdiff_t left = y->outputs - j, most = THIN_SUMS / 4;
        width = (left + (left + most - 1) / most - 1) / ((left + most - 1) / most);
        const ptrdiff_t tallest = FN(thin_height)((int)width);
        for (ptrdiff_t k = 0, height; k < y->inputs; k += height) {
            const ptrdiff_t rest = y->inputs - k, tiles = (rest + tallest - 1) / tallest;
            height = (rest + tiles - 1) / tiles;
#define TILE(k_, j_)                                                                             \
    case 16 * (j_) + (k_):                                                                       \
        if ((k_) <= FN(thin_height)(j_))                                                         \
            FN(thin_tile)(k_, j_, inputs + k * stride, y->activated + j * stride, stride, vectors, \
                          sums + k * y->outputs + j, y->outputs, start);                         \
        break;
            switch (16 * width + height) {
                TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1)
                TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2)
#if THIN_SUMS == 16
                TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2)
                TILE(1, 3) TILE(2, 3) TILE(3, 3) TILE(4, 3) TILE(5, 3)
                TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4)
#endif
            }
#undef TILE
        }
    }
}

/* ------------------------------------------------------------------------------------- one step */

/* Loss, right rows and gradients, lane by lane, of a block: rows row, row + 1, ... of the batch. */
static void FN(thin_rows)(FN(thin) *t, uint64_t iteration, const int64_t *order, ptrdiff_t first,
                          ptrdiff_t row, ptrdiff_t rows) {
    const ptrdiff_t vectors = (rows + LANES - 1) / LANES;
    if (!t->held) FN(thin_block)(t, order, first, rows);
    t->held = t->same;
    FN(thin_forward)(t, iteration, row, vectors);
    FN(thin_losses)(t, rows);
    for (int l = t->p->layers - 1; l >= 0; l--) {
        const FN(thin_layer) *y = &t->layer[l];
        FN(thin_products)(t, y, l ? y[-1].fed_on : t->inputs, vectors, row == 0);
        if (l == 0) return;
#define BACKWARD(n, i) FN(thin_backward)(n, t, y - 1, i)
        IN_GROUPS(vectors, BACKWARD);
#undef BACKWARD
        if (y[-1].activation >= SOFTMAX) FN(thin_softmax_pass)(t, y - 1, vectors);
    }
}

/* Clips the gradients of n parameters: each, or their norm. */
static void FN(thin_clip)(REAL *gradients, ptrdiff_t n, double clipvalue, double clipnorm) {
    const REAL limit = (REAL)clipvalue;
    double squares = 0;
    for (ptrdiff_t i = 0; i < n; i++) squares += (double)gradients[i] * (double)gradients[i];
    const double norm = sqrt(squares);
    const REAL scale = (REAL)(norm > clipnorm ? clipnorm / norm : 1);
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL g = gradients[i];
        g = g > limit ? limit : g;
        g = g < -limit ? -limit : g;
        gradients[i] = g * scale;
    }
}

/* The optimizer's step from the gradients' lanes; returns the penalties of the weights before it. */
static double FN(thin_update)(const FN(thin) *t, const FN(rule) *rule) {
    const plan *p = t->p;
    double penalty = 0;
    for (ptrdiff_t i = 0; i < t->count; i += LANES) {
        V part[LANES];
        memcpy(part, t->sums + i, sizeof part);
        FN(v_sums)(part);
        AT(t->gradients, i) = part[0];
    }
    for (int l = 0; l < p->layers && (p->l1 != 0 || p->l2 != 0); l++) {
        const FN(thin_layer) *y = &t->layer[l];
        penalty += FN(add_penalty)((const REAL *)p->parameters + y->offset, p->l1, p->l2,
                                   t->gradients + y->offset, y->inputs * y->outputs);
    }
    if (p->clipvalue < INFINITY) {
        FN(thin_clip)(t->gradients, t->count, p->clipvalue, INFINITY);
    } else if (p->global_clipnorm < INFINITY) {
        FN(thin_clip)(t->gradients, t->count, INFINITY, p->global_clipnorm);
    } else if (p->clipnorm < INFINITY) {
        for (int l = 0; l < p->layers; l++) {
            const FN(thin_layer) *y = &t->layer[l];
            const ptrdiff_t weights = y->inputs * y->outputs;
            FN(thin_clip)(t->gradients + y->offset, weights, INFINITY, p->clipnorm);
            FN(thin_clip)(t->gradients + y->offset + weights, y->outputs, INFINITY, p->clipnorm);
        }
    }
    FN(apply)(rule, p->parameters, t->gradients, p->slots[0], p->slots[1], t->count);
    return penalty;
}

/* A step on rows start, start + 1, ... of the epoch, in blocks of at most `most` vectors. */
static void FN(thin_step)(FN(thin) *t, const FN(rule) *rule, uint64_t iteration, ptrdiff_t start,
                          ptrdiff_t most) {
    const plan *p = t->p;
    const int elementwise = p->loss == BINARY_CROSSENTROPY || p->loss >= MEAN_SQUARED_ERROR;
    const ptrdiff_t rows = p->n - start < p->batch ? p->n - start : p->batch, block = most * LANES;
    const ptrdiff_t outputs = t->layer[p->layers - 1].outputs;
    t->rows = rows;
    t->scale = (REAL)(1.0 / rows / (elementwise ? outputs : 1));
    t->loss = t->right = 0;
    for (int l = 0; l < p->layers; l++) { /* those of weights begin with the first block's */
        const FN(thin_layer) *y = &t->layer[l];
        V *bias = t->sums + y->offset + y->inputs * y->outputs;
        for (ptrdiff_t j = 0; j < y->outputs; j++) bias[j] = (V){0};
    }
    for (ptrdiff_t row = 0; row < rows; row += block)
        FN(thin_rows)(t, iteration, p->order ? p->order + start + row : NULL, start + row, row,
                      rows - row < block ? rows - row : block);
    const double loss = t->loss + FN(thin_update)(t, rule);
    p->totals[0] += loss * rows;
    p->totals[1] += t->right;
    p->totals[2] += rows;
}

/* ------------------------------------------------------------------------------------- the call */

/* Whether a plan is for train_thin: few units, and rows enough to pay for adding up the lanes of each
 * parameter's gradient. With 16 units everywhere, which fill vectors, the engine is as fast; with 16
 * parameters a row, two hidden layers of 16 and one output are. */
static int FN(is_thin)(const plan *p) {
    ptrdiff_t count = 0;
    if (p->starts || p->batch < 4 || p->sizes[0] > THIN_UNITS) return 0;
    for (int l = 0; l < p->layers; l++) {
        if (p->sizes[l + 1] > THIN_UNITS) return 0;
        count += (p->sizes[l] + 1) * p->sizes[l + 1];
    }
    return count <= 16 * p->batch;
}

/* Points arrays into scratch, where there is one; returns how many bytes that takes. */
static ptrdiff_t FN(thin_lay_out)(FN(thin) *t, char *scratch) {
    const plan *p = t->p;
    const ptrdiff_t array = t->stride * (ptrdiff_t)sizeof(REAL);
    pieces all = {scratch, 0, 0};
    t->inputs = carve(&all, p->sizes[0] * array);
    t->targets = carve(&all, p->sizes[p->layers] * array);
    t->labels = p->labels && p->loss != BINARY_CROSSENTROPY ? carve(&all, array) : NULL;
    t->weights = p->sample_weight ? carve(&all, array) : NULL;
    for (int l = 0; l < p->layers; l++) {
        FN(thin_layer) *y = &t->layer[l];
        const int separate = y->activation >= SILU;
        y->activated = carve(&all, y->outputs * array);
        y->taken = separate ? carve(&all, y->outputs * array) : y->activated;
        y->factors = y->dropout > 0 ? carve(&all, y->outputs * array) : NULL;
        y->fed_on = y->dropout > 0 ? carve(&all, y->outputs * array) : y->activated;
    }
    return all.used;
}

/* Takes the steps of a plan, see FN(train). */
static ptrdiff_t FN(train_thin)(plan *p) {
    FN(thin) t;
    t.p = p;
    t.count = 0;
    for (int l = 0; l < p->layers; l++) {
        t.layer[l] = (FN(thin_layer)){
            .inputs = p->sizes[l],
            .outputs = p->sizes[l + 1],
            .activation = (int)p->activations[l],
            .slope = p->slopes[l],
            .dropout = p->dropout[l],
            .offset = t.count,
        };
        t.count += (p->sizes[l] + 1) * p->sizes[l + 1];
    }
    /* Blocks of nearly equal size, of whole groups of rows that dropout draws for together. */
    const ptrdiff_t unit = LANES < ROWS_DRAWN ? ROWS_DRAWN / LANES : 1;
    const ptrdiff_t vectors = (p->batch + LANES - 1) / LANES;
    t.stride = LANES;
    ptrdiff_t most = THIN_BYTES / FN(thin_lay_out)(&t, NULL);
    most = most < VECTORS_AT_ONCE ? VECTORS_AT_ONCE : most > THIN_VECTORS ? THIN_VECTORS : most;
    const ptrdiff_t blocks = (vectors + most - 1) / most;
    most = ((vectors + blocks - 1) / blocks + unit - 1) / unit * unit;
    /* An odd number of cache lines: with a power of two, all units would compete for a few places of the
     * cache. */
    t.stride = ((most * VECTOR_BYTES + 63) / 64 | 1) * 64 / (ptrdiff_t)sizeof(REAL);
    const ptrdiff_t arrays = FN(thin_lay_out)(&t, NULL), padded = (t.count + LANES - 1) / LANES * LANES;
    const ptrdiff_t bytes = arrays + padded * (VECTOR_BYTES + (ptrdiff_t)sizeof(REAL));
    char *scratch = scratch_memory(bytes);
    if (!scratch) return -1;
    FN(thin_lay_out)(&t, scratch);
    t.sums = (V *)(scratch + arrays);
    t.gradients = (REAL *)(t.sums + padded);
    t.same = !p->order && p->n <= p->batch && vectors <= most;
    t.held = 0;
    const float_mode mode = flush_subnormals();
    ptrdiff_t done = 0, step = p->first;
    do {
        if (step == steps_of_epoch(p)) {
            step = 0;
            begin_epoch(p);
        }
        const FN(rule) rule = FN(make_rule)(p->optimizer, p->rates[done], p->momentum, p->beta_2,
                                            p->epsilon, p->updates + done + 1, p->weight_decay);
        FN(thin_step)(&t, &rule, p->iteration + done, step++ * p->batch, most);
        done++;
    } while (done < p->steps && seconds() < p->until);
    restore_subnormals(mode);
    give_back(scratch);
    return done;
}

#undef IN_GROUPS
#undef THIN_UNITS
#undef THIN_BYTES
#undef THIN_VECTORS
#undef THIN_SUMS
#undef ROWS_DRAWN
#undef EACH
#undef AT
#undef MASK
#undef V
