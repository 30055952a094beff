/* The training engine for one REAL: many steps of one network in one call, on any number of
 * threads.
 *
 * A step runs phase by phase; in each phase every thread computes its own part of one array, and
 * the threads meet at a barrier before anyone reads another's part. A layer of many outputs is cut
 * by columns, so that a thread keeps meeting the same weights and optimizer slots, which stay in
 * its core's cache; a narrow one is cut by rows, of the batch (forward, backward) and of the
 * weights (update). Every element is computed whole by one thread, in an order that has nothing to
 * do with the cut: results are bit-identical for any number of threads.
 *
 * In rows of weights, the columns of one thread alternate with another's, every few cache lines, and
 * the processor fetches ahead what the other is about to change: two threads took longer than one.
 * They therefore work on copies in which each thread's columns are a matrix of their own.
 *
 * The weight gradient is not stored: a tile of it is summed in registers and handed to the
 * optimizer, unless all of it is needed first (clipping by norm). A first layer fed with sparse
 * rows skips the zeros in both directions.
 */

/* Dropout draws for eight rows at a time, and losses add up in blocks of as many. */
#define ROW_BLOCK 8
/* Sums over parameters add up in blocks of so many of an array. */
#define SUM_BLOCK 4096

/* ------------------------------------------------------------------------ what a call is given */

typedef struct {
    ptrdiff_t inputs, outputs; /* units */
    int activation;
    int by_columns;     /* cut by columns, not by rows */
    double slope;       /* of the activation */
    double dropout;     /* rate after it */
    ptrdiff_t offset;   /* of weights (inputs, outputs) in the flat arrays; bias (outputs,) follows */
    REAL *preactivated; /* (batch, outputs) what the activation took, or the same as activated */
    REAL *activated;    /* (batch, outputs) the activation's result */
    REAL *fed_on;       /* (batch, outputs) that after dropout; the same as activated without */
    REAL *factors;      /* (batch, outputs) what dropout multiplied by; NULL without */
    REAL *gradients;    /* (batch, outputs) of the loss, in fed_on and then in preactivated */
} FN(layer);

typedef struct {
    plan p; /* what the caller wants; the arrays of it that hold REAL stand below once more */
    FN(layer) layer[MOST_LAYERS];
    REAL *parameters, *slots[2], *gradients;
    int split; /* parameters and slots are copies in which each thread's columns stand together */
    const REAL *inputs, *values, *sample_weight;
    ptrdiff_t done; /* steps taken */
    int stop;
    barrier *meeting;
    /* scratch */
    REAL *batch_inputs;    /* (batch, features), dense data only */
    REAL *batch_targets;   /* (batch, outputs) */
    int64_t *batch_labels; /* (batch,) integer targets */
    REAL *batch_weight;    /* (batch,) */
    REAL *transposed;      /* (threads, features, batch), sparse data only */
    uint64_t *present;     /* (threads, features, words): which rows have that feature */
    double *block_losses;  /* of each ROW_BLOCK rows */
    double *block_right;
    double *block_sums;    /* (blocks,) of each SUM_BLOCK parameters: penalties, or squares */
    ptrdiff_t blocks;
} FN(engine);

/* --------------------------------------------------------------------------- dividing the work */

typedef struct {
    ptrdiff_t start, stop;
} FN(range);

/* Thread t's part of `total` elements, in whole units. */
INLINE FN(range) FN(share)(ptrdiff_t total, ptrdiff_t unit, int thread, int threads) {
    const ptrdiff_t units = (total + unit - 1) / unit;
    ptrdiff_t start = units * thread / threads * unit, stop = units * (thread + 1) / threads * unit;
    return (FN(range)){start < total ? start : total, stop < total ? stop : total};
}

/* A thread's part of a layer's outputs for a batch. */
INLINE void FN(outputs_share)(const FN(layer) *y, ptrdiff_t rows, int thread, int threads,
                              FN(range) *row, FN(range) *column) {
    const FN(range) all_rows = {0, rows}, all_columns = {0, y->outputs};
    *row = y->by_columns ? all_rows : FN(share)(rows, ROW_BLOCK, thread, threads);
    *column = y->by_columns ? FN(share)(y->outputs, LANES, thread, threads) : all_columns;
}

/* Where the weights of some columns of a layer stand in the flat arrays, row after row of `stride`. */
typedef struct {
    ptrdiff_t at, stride;
} FN(place);

INLINE FN(place) FN(weights_of)(const FN(engine) *e, const FN(layer) *y, FN(range) column) {
    if (e->split && y->by_columns)
        return (FN(place)){y->offset + y->inputs * column.start, column.stop - column.start};
    return (FN(place)){y->offset + column.start, y->outputs};
}

/* ------------------------------------------------------------------------------------- forward */

/* VECTORS x LANES outputs of one sparse row. */
INLINE void FN(sparse_row)(int vectors, const REAL *weights, ptrdiff_t stride, const REAL *bias,
                           const int32_t *columns, const REAL *values, ptrdiff_t count,
                           REAL *outputs) {
    FN(vector) sum[SPARSE_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sum[v] = *(const FN(vector) *)(bias + v * LANES);
    for (ptrdiff_t k = 0; k < count; k++) {
        const REAL *row = weights + columns[k] * stride, value = values[k];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[v] += value * *(const FN(vector) *)(row + v * LANES);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) *(FN(vector) *)(outputs + v * LANES) = sum[v];
}

/* preactivated[:, column] of the first layer for the given rows of a batch of sparse rows. */
static void FN(sparse_forward)(const FN(engine) *e, const int64_t *order, ptrdiff_t first,
                               FN(range) row, FN(range) column) {
    const FN(layer) *y = e->layer;
    const FN(place) place = FN(weights_of)(e, y, column);
    const REAL *weights = e->parameters + place.at - column.start;
    const REAL *bias = e->parameters + y->offset + y->inputs * y->outputs;
    for (ptrdiff_t j = column.start; j < column.stop;) {
        ptrdiff_t left = column.stop - j, vectors = left / LANES;
        if (vectors > SPARSE_VECTORS) vectors = SPARSE_VECTORS;
        for (ptrdiff_t b = row.start; b < row.stop; b++) {
            const ptrdiff_t sample = order ? order[b] : first + b, start = e->p.starts[sample];
            const ptrdiff_t count = e->p.starts[sample + 1] - start;
            const int32_t *columns = e->p.columns + start;
            const REAL *values = e->values + start;
            REAL *outputs = y->preactivated + b * y->outputs + j;
#define SPARSE_ROW(vectors) \
    FN(sparse_row)(vectors, weights + j, place.stride, bias + j, columns, values, count, outputs)
            switch (vectors) {
            case 8: SPARSE_ROW(8); break;
            case 7: SPARSE_ROW(7); break;
            case 6: SPARSE_ROW(6); break;
            case 5: SPARSE_ROW(5); break;
            case 4: SPARSE_ROW(4); break;
            case 3: SPARSE_ROW(3); break;
            case 2: SPARSE_ROW(2); break;
            case 1: SPARSE_ROW(1); break;
            default: /* the last columns, fewer than a vector has lanes */
                for (ptrdiff_t o = 0; o < left; o++) {
                    REAL sum = bias[j + o];
                    for (ptrdiff_t k = 0; k < count; k++)
                        sum += values[k] * weights[columns[k] * place.stride + j + o];
                    outputs[o] = sum;
                }
            }
#undef SPARSE_ROW
        }
        j += vectors ? vectors * LANES : left;
    }
}

/* A part of a layer's outputs. The batch's rows in sparse data are those that `order` names, or those
 * from `first` on. */
static void FN(forward_part)(const FN(engine) *e, int l, const REAL *inputs, const int64_t *order,
                             ptrdiff_t first, FN(range) row, FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t width = column.stop - column.start, stride = y->outputs;
    const FN(place) place = FN(weights_of)(e, y, column);
    const REAL *bias = e->parameters + y->offset + y->inputs * stride + column.start;
    if (row.start == row.stop || !width) return;
    if (l == 0 && e->p.starts)
        FN(sparse_forward)(e, order, first, row, column);
    else
        FN(blocked_product)(row.stop - row.start, width, y->inputs, inputs + row.start * y->inputs,
                            y->inputs, 1, e->parameters + place.at, place.stride, 1, bias,
                            y->preactivated + row.start * stride + column.start, stride, 1);
    if (y->factors)
        FN(dropout_factors)(y->dropout, e->p.seed, e->p.iteration, l, row.start, row.stop, column.start,
                            column.stop, y->factors + row.start * stride + column.start, stride);
    for (ptrdiff_t b = row.start; b < row.stop; b++) {
        const ptrdiff_t at = b * stride + column.start;
        FN(activation_forward)(y->preactivated + at, y->activation, y->slope, y->activated + at, 1,
                               width);
        if (!y->factors) continue;
        const REAL *activated = y->activated + at, *factors = y->factors + at;
        REAL *fed_on = y->fed_on + at;
#pragma omp simd
        for (ptrdiff_t i = 0; i < width; i++) fed_on[i] = activated[i] * factors[i];
    }
}

/* ---------------------------------------------------------------------------------------- loss */

/* How many of the given rows of outputs have their largest at the label, or, for binary targets, what
 * share of their outputs lies on the target's side of the threshold. */
static double FN(count_right)(const FN(engine) *e, const REAL *outputs, const int64_t *order,
                              ptrdiff_t first, ptrdiff_t row, ptrdiff_t rows) {
    const ptrdiff_t o = e->layer[e->p.layers - 1].outputs;
    const REAL threshold = e->p.from_logits ? 0 : (REAL)0.5;
    ptrdiff_t right = 0;
    if (e->p.loss == BINARY_CROSSENTROPY) {
        const REAL *targets = e->batch_targets + row * o;
        for (ptrdiff_t i = 0; i < rows * o; i++) right += (outputs[i] > threshold) == targets[i];
        return (double)right / o;
    }
    if (!e->p.labels) return 0;
    for (ptrdiff_t b = row; b < row + rows; b++, outputs += o) {
        ptrdiff_t best = 0;
        for (ptrdiff_t i = 1; i < o; i++)
            if (outputs[i] > outputs[best]) best = i;
        right += best == e->p.labels[order ? order[b] : first + b];
    }
    return right;
}

/* Losses of the given rows of the batch, block by block, and their gradients in the last layer's
 * preactivations. */
static void FN(loss_part)(const FN(engine) *e, const int64_t *order, ptrdiff_t first, ptrdiff_t rows,
                          FN(range) row) {
    const FN(layer) *y = &e->layer[e->p.layers - 1];
    const ptrdiff_t o = y->outputs;
    for (ptrdiff_t b = row.start; b < row.stop; b += ROW_BLOCK) {
        const ptrdiff_t part = row.stop - b < ROW_BLOCK ? row.stop - b : ROW_BLOCK;
        const REAL *targets = e->batch_targets + b * o, *outputs = y->activated + b * o;
        const REAL *weight = e->sample_weight ? e->batch_weight + b : NULL;
        REAL *gradients = y->gradients + b * o;
        double loss = 0;
        switch (e->p.loss) {
        case BINARY_CROSSENTROPY:
            loss = FN(binary_crossentropy)(targets, outputs, weight, e->p.from_logits,
                                           e->p.loss_parameter, gradients, part, o, rows);
            break;
        case CATEGORICAL_CROSSENTROPY:
            loss = FN(categorical_crossentropy)(targets, outputs, weight, e->p.from_logits,
                                                e->p.loss_parameter, gradients, part, o, rows);
            break;
        case SPARSE_CATEGORICAL_CROSSENTROPY:
            loss = FN(sparse_categorical_crossentropy)(e->batch_labels + b, outputs, weight,
                                                       e->p.from_logits, e->p.loss_parameter, gradients,
                                                       part, o, rows);
            break;
        case MEAN_SQUARED_ERROR:
            loss = FN(mean_squared_error)(targets, outputs, weight, gradients, part, o, rows);
            break;
        case MEAN_ABSOLUTE_ERROR:
            loss = FN(mean_absolute_error)(targets, outputs, weight, gradients, part, o, rows);
            break;
        case HUBER:
            loss = FN(huber)(targets, outputs, weight, e->p.loss_parameter, gradients, part, o, rows);
            break;
        }
        e->block_losses[b / ROW_BLOCK] = loss;
        e->block_right[b / ROW_BLOCK] = FN(count_right)(e, outputs, order, first, b, part);
        if (y->activation != LINEAR)
            FN(activation_backward)(y->preactivated + b * o, outputs, gradients, y->activation,
                                    y->slope, gradients, part, o);
    }
}

/* ------------------------------------------------------------------------------------ backward */

/* A part of the gradients in layer l's preactivations, from all of layer l + 1's. */
static void FN(backward_part)(const FN(engine) *e, int l, FN(range) row, FN(range) column) {
    const FN(layer) *y = &e->layer[l], *next = &e->layer[l + 1];
    const ptrdiff_t width = column.stop - column.start, stride = y->outputs, o = next->outputs;
    if (row.start == row.stop || !width) return;
    const int parts = e->split && next->by_columns ? e->p.threads : 1;
    for (int part = 0; part < parts; part++) {
        const FN(range) of = FN(share)(o, LANES, part, parts);
        const FN(place) place = FN(weights_of)(e, next, of);
        FN(blocked_product)(row.stop - row.start, width, of.stop - of.start,
                            next->gradients + row.start * o + of.start, o, 1,
                            e->parameters + place.at + column.start * place.stride, 1,
                            place.stride, NULL,
                            y->gradients + row.start * stride + column.start, stride, part == 0);
    }
    for (ptrdiff_t b = row.start; b < row.stop; b++) {
        const ptrdiff_t at = b * stride + column.start;
        REAL *gradients = y->gradients + at;
        if (y->factors) {
            const REAL *factors = y->factors + at;
#pragma omp simd
            for (ptrdiff_t i = 0; i < width; i++) gradients[i] *= factors[i];
        }
        FN(activation_backward)(y->preactivated + at, y->activated + at, gradients, y->activation,
                                y->slope, gradients, 1, width);
    }
}

/* -------------------------------------------------------------------------------------- update */

/* The gradient of n consecutive parameters from `at` on: to the optimizer, or kept for later. */
INLINE void FN(use)(const FN(engine) *e, const FN(rule) *rule, ptrdiff_t at, const REAL *gradients,
                    ptrdiff_t n) {
    if (e->gradients) {
        memcpy(e->gradients + at, gradients, n * sizeof(REAL));
        return;
    }
    FN(apply)(rule, e->parameters + at, gradients, e->slots[0] ? e->slots[0] + at : NULL,
              e->slots[1] ? e->slots[1] + at : NULL, n);
}

/* The same for weights, which are penalised. */
INLINE void FN(use_weights)(const FN(engine) *e, const FN(rule) *rule, ptrdiff_t at,
                            REAL *gradients, ptrdiff_t n) {
    if (e->p.l1 != 0 || e->p.l2 != 0) FN(add_penalty)(e->parameters + at, e->p.l1, e->p.l2, gradients, n);
    FN(use)(e, rule, at, gradients, n);
}

/* Weight rows `row`, columns `column` of layer l from dense inputs (batch, inputs). */
static void FN(update_part)(const FN(engine) *e, const FN(rule) *rule, int l, const REAL *inputs,
                            ptrdiff_t rows, FN(range) row, FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const FN(place) place = FN(weights_of)(e, y, column);
    REAL sums[TILE_ROWS * TILE_VECTORS * LANES] __attribute__((aligned(64)));
    const ptrdiff_t panel = TILE_VECTORS * LANES;
    for (ptrdiff_t j = column.start; j < column.stop; j += panel) {
        const ptrdiff_t width = column.stop - j < panel ? column.stop - j : panel;
        for (ptrdiff_t i = row.start; i < row.stop; i += TILE_ROWS) {
            const ptrdiff_t part = row.stop - i < TILE_ROWS ? row.stop - i : TILE_ROWS;
            /* Whole vectors, beyond the last column too: the scratch has room behind it. */
            (width <= LANES ? FN(panel_narrow) : FN(panel_wide))(
                part, rows, inputs + i, 1, y->inputs, y->gradients + j, y->outputs, sums, panel, 1,
                NULL);
            if (width == place.stride) { /* whole rows of weights, one after the other */
                for (ptrdiff_t p = 1; p < part && width < panel; p++)
                    memmove(sums + p * width, sums + p * panel, width * sizeof(REAL));
                FN(use_weights)(e, rule, place.at + i * width, sums, part * width);
                continue;
            }
            for (ptrdiff_t p = 0; p < part; p++)
                FN(use_weights)(e, rule, place.at + (i + p) * place.stride + j - column.start,
                                sums + p * panel, width);
        }
    }
}

/* VECTORS x LANES weight gradients of one input over the rows that have it. */
INLINE void FN(sparse_sum)(int vectors, const uint64_t *present, ptrdiff_t words,
                           const REAL *values, const REAL *gradients, ptrdiff_t stride,
                           REAL *outputs) {
    FN(vector) sum[SPARSE_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sum[v] = (FN(vector)){0};
    for (ptrdiff_t w = 0; w < words; w++)
        for (uint64_t bits = present[w]; bits; bits &= bits - 1) {
            const ptrdiff_t b = w * 64 + __builtin_ctzll(bits);
            const REAL value = values[b], *row = gradients + b * stride;
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                sum[v] += value * *(const FN(vector) *)(row + v * LANES);
        }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) *(FN(vector) *)(outputs + v * LANES) = sum[v];
}

/* The same as update_part for the first layer, from sparse rows as `transpose` left them. */
static void FN(sparse_update)(const FN(engine) *e, const FN(rule) *rule, int thread,
                              FN(range) row, FN(range) column) {
    const FN(layer) *y = e->layer;
    const FN(place) place = FN(weights_of)(e, y, column);
    const ptrdiff_t words = (e->p.batch + 63) / 64;
    const uint64_t *present = e->present + thread * y->inputs * words;
    const REAL *transposed = e->transposed + thread * y->inputs * e->p.batch;
    REAL sums[SPARSE_VECTORS * LANES] __attribute__((aligned(64)));
    for (ptrdiff_t r = row.start; r < row.stop; r++) {
        const ptrdiff_t i = e->p.live ? e->p.live[r] : r;
        for (ptrdiff_t j = column.start; j < column.stop; j += SPARSE_VECTORS * LANES) {
            ptrdiff_t width = column.stop - j;
            if (width > SPARSE_VECTORS * LANES) width = SPARSE_VECTORS * LANES;
#define SPARSE_SUM(vectors)                                                               \
    FN(sparse_sum)(vectors, present + i * words, words, transposed + i * e->p.batch,        \
                   y->gradients + j, y->outputs, sums)
            switch ((width + LANES - 1) / LANES) {
            case 8: SPARSE_SUM(8); break;
            case 7: SPARSE_SUM(7); break;
            case 6: SPARSE_SUM(6); break;
            case 5: SPARSE_SUM(5); break;
            case 4: SPARSE_SUM(4); break;
            case 3: SPARSE_SUM(3); break;
            case 2: SPARSE_SUM(2); break;
            case 1: SPARSE_SUM(1); break;
            }
#undef SPARSE_SUM
            FN(use_weights)(e, rule, place.at + i * place.stride + j - column.start, sums, width);
        }
    }
}

/* Notes for this thread which rows of the batch have which inputs, and with what values. */
static void FN(transpose)(const FN(engine) *e, int thread, const int64_t *order, ptrdiff_t first,
                          ptrdiff_t rows) {
    const ptrdiff_t features = e->layer[0].inputs, words = (e->p.batch + 63) / 64, batch = e->p.batch;
    uint64_t *present = e->present + thread * features * words;
    REAL *transposed = e->transposed + thread * features * batch;
    memset(present, 0, features * words * sizeof *present);
    for (ptrdiff_t b = 0; b < rows; b++) {
        const ptrdiff_t sample = order ? order[b] : first + b, start = e->p.starts[sample];
        const ptrdiff_t count = e->p.starts[sample + 1] - start;
        const int32_t *columns = e->p.columns + start;
        const REAL *values = e->values + start;
        uint64_t *word = present + b / 64;
        REAL *place = transposed + b;
        /* Rows lie anywhere in memory: ask now for one of the next batch. Waiting for them took a
         * sixth of a step. */
        const ptrdiff_t later = first + rows + b;
        if (later < e->p.n) {
            const ptrdiff_t next = e->p.order ? e->p.order[later] : later;
            const int64_t begin = e->p.starts[next], end = e->p.starts[next + 1];
            for (int64_t k = begin; k < end; k += 64 / (ptrdiff_t)sizeof(int32_t))
                __builtin_prefetch(e->p.columns + k, 0, 2);
            for (int64_t k = begin; k < end; k += 64 / (ptrdiff_t)sizeof(REAL))
                __builtin_prefetch(e->values + k, 0, 2);
        }
        const uint64_t bit = (uint64_t)1 << (b % 64);
        for (ptrdiff_t k = 0; k < count; k++) {
            word[columns[k] * words] |= bit;
            place[columns[k] * batch] = values[k];
        }
    }
}

/* Bias of the given columns, from the gradients summed over the rows in order. */
static void FN(update_bias)(const FN(engine) *e, const FN(rule) *rule, int l, ptrdiff_t rows,
                            FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    REAL sums[SPARSE_VECTORS * LANES];
    for (ptrdiff_t j = column.start; j < column.stop; j += SPARSE_VECTORS * LANES) {
        ptrdiff_t width = column.stop - j;
        if (width > SPARSE_VECTORS * LANES) width = SPARSE_VECTORS * LANES;
        for (ptrdiff_t o = 0; o < width; o++) sums[o] = 0;
        for (ptrdiff_t b = 0; b < rows; b++) {
            const REAL *gradients = y->gradients + b * y->outputs + j;
#pragma omp simd
            for (ptrdiff_t o = 0; o < width; o++) sums[o] += gradients[o];
        }
        FN(use)(e, rule, y->offset + y->inputs * y->outputs + j, sums, width);
    }
}

/* -------------------------------------------------------------- sums over all the parameters
 *
 * In blocks of a fixed size, added up in their order, whoever computed them. */

/* Penalty of each block of weights, or sum of squares of each block of gradients. */
static void FN(sum_blocks)(const FN(engine) *e, int thread, int penalties) {
    ptrdiff_t block = 0;
    for (int a = 0; a < 2 * e->p.layers; a++) { /* weights, bias, weights, bias, ... */
        const FN(layer) *y = &e->layer[a / 2];
        const ptrdiff_t weights = y->inputs * y->outputs, size = a % 2 ? y->outputs : weights;
        const ptrdiff_t offset = y->offset + (a % 2 ? weights : 0);
        for (ptrdiff_t start = 0; start < size; start += SUM_BLOCK, block++) {
            if (block % e->p.threads != thread) continue;
            const REAL *values = (penalties ? e->parameters : e->gradients) + offset + start;
            const ptrdiff_t n = size - start < SUM_BLOCK ? size - start : SUM_BLOCK;
            double absolutes = 0, squares = 0;
#pragma omp simd reduction(+ : absolutes, squares)
            for (ptrdiff_t i = 0; i < n; i++) {
                absolutes += (double)FN(absolute)(values[i]);
                squares += (double)values[i] * (double)values[i];
            }
            e->block_sums[block] = !penalties ? squares
                                   : a % 2    ? 0
                                              : e->p.l1 * absolutes + e->p.l2 * squares;
        }
    }
}

/* What clipping multiplies the gradients of array a by. */
static REAL FN(clip_scale)(const FN(engine) *e, int array) {
    double squares = 0;
    ptrdiff_t block = 0;
    for (int a = 0; a < 2 * e->p.layers; a++) {
        const FN(layer) *y = &e->layer[a / 2];
        const ptrdiff_t size = a % 2 ? y->outputs : y->inputs * y->outputs;
        for (ptrdiff_t start = 0; start < size; start += SUM_BLOCK, block++)
            if (a == array || e->p.global_clipnorm < INFINITY) squares += e->block_sums[block];
    }
    const double limit = e->p.global_clipnorm < INFINITY ? e->p.global_clipnorm : e->p.clipnorm;
    const double norm = sqrt(squares);
    return (REAL)(norm > limit ? limit / norm : 1);
}

/* The optimizer's step from whole gradients, clipped first: each thread updates a part of each
 * array. */
static void FN(clipped_update)(const FN(engine) *e, barrier *meeting, const FN(rule) *rule,
                               int thread) {
    const REAL limit = (REAL)e->p.clipvalue;
    meet(meeting, thread);
    if (!(e->p.clipvalue < INFINITY)) {
        FN(sum_blocks)(e, thread, 0);
        meet(meeting, thread);
    }
    for (int a = 0; a < 2 * e->p.layers; a++) {
        const FN(layer) *y = &e->layer[a / 2];
        const ptrdiff_t weights = y->inputs * y->outputs;
        const ptrdiff_t offset = y->offset + (a % 2 ? weights : 0);
        const FN(range) part = FN(share)(a % 2 ? y->outputs : weights, LANES, thread, e->p.threads);
        const ptrdiff_t at = offset + part.start, n = part.stop - part.start;
        REAL *gradients = e->gradients + at;
        if (e->p.clipvalue < INFINITY) {
#pragma omp simd
            for (ptrdiff_t i = 0; i < n; i++) {
                REAL g = gradients[i];
                g = g > limit ? limit : g;
                gradients[i] = g < -limit ? -limit : g;
            }
        } else {
            const REAL scale = FN(clip_scale)(e, a);
#pragma omp simd
            for (ptrdiff_t i = 0; i < n; i++) gradients[i] *= scale;
        }
        FN(apply)(rule, e->parameters + at, gradients, e->slots[0] ? e->slots[0] + at : NULL,
                  e->slots[1] ? e->slots[1] + at : NULL, n);
    }
}

/* The step's loss and right rows to the totals. */
static void FN(add_up)(const FN(engine) *e, ptrdiff_t rows) {
    double loss = 0, right = 0;
    for (ptrdiff_t b = 0; b < rows; b += ROW_BLOCK) {
        loss += e->block_losses[b / ROW_BLOCK];
        right += e->block_right[b / ROW_BLOCK];
    }
    if (e->p.l1 != 0 || e->p.l2 != 0)
        for (ptrdiff_t block = 0; block < e->blocks; block++) loss += e->block_sums[block];
    e->p.totals[0] += loss * rows;
    e->p.totals[1] += right;
    e->p.totals[2] += rows;
}

/* ------------------------------------------------------------------------- one thread's steps */

/* A thread's share of the batch's rows, gathered into scratch. */
static void FN(gather)(const FN(engine) *e, const int64_t *order, ptrdiff_t start, FN(range) row) {
    const ptrdiff_t features = e->layer[0].inputs, outputs = e->layer[e->p.layers - 1].outputs;
    for (ptrdiff_t b = row.start; b < row.stop; b++) {
        const ptrdiff_t sample = order ? order[b] : start + b;
        if (e->inputs)
            memcpy(e->batch_inputs + b * features, e->inputs + sample * features,
                   features * sizeof(REAL));
        if (e->p.loss == SPARSE_CATEGORICAL_CROSSENTROPY)
            e->batch_labels[b] = ((const int64_t *)e->p.targets)[sample];
        else
            memcpy(e->batch_targets + b * outputs, (const REAL *)e->p.targets + sample * outputs,
                   outputs * sizeof(REAL));
        if (e->sample_weight) e->batch_weight[b] = e->sample_weight[sample];
    }
}

/* Copies this thread's part of parameters and slots to where it works on them, or back. */
static void FN(exchange)(const FN(engine) *e, int thread, int back) {
    REAL *const given[3] = {e->p.parameters, e->p.slots[0], e->p.slots[1]};
    REAL *const worked[3] = {e->parameters, e->slots[0], e->slots[1]};
    for (int a = 0; a < 3; a++) {
        if (!given[a]) continue;
        for (int l = 0; l < e->p.layers; l++) {
            const FN(layer) *y = &e->layer[l];
            const FN(range) all = {0, thread ? 0 : y->outputs};
            const FN(range) column =
                y->by_columns ? FN(share)(y->outputs, LANES, thread, e->p.threads) : all;
            const FN(place) place = FN(weights_of)(e, y, column);
            const size_t bytes = (column.stop - column.start) * sizeof(REAL);
            for (ptrdiff_t i = 0; bytes && i <= y->inputs; i++) { /* the last row is the bias */
                REAL *outside = given[a] + y->offset + i * y->outputs + column.start;
                REAL *inside = i < y->inputs ? worked[a] + place.at + i * place.stride
                                             : worked[a] + (outside - given[a]);
                memcpy(back ? outside : inside, back ? inside : outside, bytes);
            }
        }
    }
}

static void FN(train_thread)(void *job, int thread) {
    FN(engine) *e = job;
    FN(engine) mine = *e; /* with counters of its own, which change from step to step */
    const int threads = e->p.threads, last = e->p.layers - 1;
    const float_mode mode = flush_subnormals();
    if (e->split) {
        FN(exchange)(e, thread, 0);
        meet(e->meeting, thread);
    }
    for (ptrdiff_t step = e->p.first;; step++) {
        const ptrdiff_t start = step * e->p.batch;
        const ptrdiff_t rows = e->p.n - start < e->p.batch ? e->p.n - start : e->p.batch;
        const int64_t *order = e->p.order ? e->p.order + start : NULL;
        const FN(rule) rule =
            FN(make_rule)(e->p.optimizer, e->p.rates[step - e->p.first], e->p.momentum, e->p.beta_2,
                          e->p.epsilon, mine.p.updates + 1, e->p.weight_decay);
        FN(range) row, column, share = FN(share)(rows, ROW_BLOCK, thread, threads);
        FN(gather)(&mine, order, start, share);
        if (e->p.starts)
            FN(transpose)(&mine, thread, order, start, rows);
        else
            meet(e->meeting, thread);
        const REAL *inputs = e->batch_inputs;
        for (int l = 0; l <= last; l++) {
            const FN(layer) *y = &e->layer[l];
            FN(outputs_share)(y, rows, thread, threads, &row, &column);
            FN(forward_part)(&mine, l, inputs, order, start, row, column);
            inputs = y->fed_on;
            /* The loss looks at whole rows: where these are cut by rows too, no need to wait. */
            if (l < last || y->by_columns) meet(e->meeting, thread);
        }
        FN(loss_part)(&mine, order, start, rows, share);
        if (e->p.l1 != 0 || e->p.l2 != 0) FN(sum_blocks)(&mine, thread, 1);
        meet(e->meeting, thread);
        if (thread == 0) FN(add_up)(e, rows);
        for (int l = last; l >= 0; l--) {
            const FN(layer) *y = &e->layer[l];
            if (l > 0) {
                FN(outputs_share)(y - 1, rows, thread, threads, &row, &column);
                FN(backward_part)(&mine, l - 1, row, column);
                meet(e->meeting, thread); /* from here on nobody reads this layer's weights */
            }
            const int sparse = l == 0 && e->p.starts != NULL;
            const ptrdiff_t height = sparse && e->p.live ? e->p.live_count : y->inputs;
            const FN(range) all_rows = {0, height}, all_columns = {0, y->outputs};
            row = y->by_columns ? all_rows
                                : FN(share)(height, sparse ? 1 : TILE_ROWS, thread, threads);
            column = y->by_columns ? FN(share)(y->outputs, LANES, thread, threads) : all_columns;
            if (sparse)
                FN(sparse_update)(&mine, &rule, thread, row, column);
            else
                FN(update_part)(&mine, &rule, l, l ? e->layer[l - 1].fed_on : e->batch_inputs, rows,
                                row, column);
            if (y->by_columns || thread == 0) FN(update_bias)(&mine, &rule, l, rows, column);
        }
        if (e->gradients) FN(clipped_update)(&mine, e->meeting, &rule, thread);
        if (thread == 0) {
            e->done = step + 1 - e->p.first;
            e->stop = e->done == e->p.steps || !(seconds() < e->p.until);
        }
        meet(e->meeting, thread);
        if (e->stop) break;
        mine.p.iteration++;
        mine.p.updates++;
    }
    if (e->split) FN(exchange)(e, thread, 1);
    restore_subnormals(mode);
}

/* ------------------------------------------------------------------------------------ the call */

/* The next `bytes` of scratch, on a cache line and with room for a vector's over-read behind; only
 * counted where there is no memory yet. */
static void *FN(carve)(char **scratch, ptrdiff_t *used, ptrdiff_t bytes) {
    void *memory = *scratch ? *scratch + *used : NULL;
    *used += (bytes + 63) / 64 * 64 + TILE_VECTORS * 64;
    return memory;
}

/* Points the engine's arrays into scratch; returns how many bytes that takes. Prediction needs the
 * layers' outputs alone. */
static ptrdiff_t FN(lay_out)(FN(engine) *e, char *scratch, int training) {
    ptrdiff_t used = 0;
    const ptrdiff_t batch = e->p.batch, features = e->layer[0].inputs;
    const ptrdiff_t outputs = e->layer[e->p.layers - 1].outputs, words = (batch + 63) / 64;
    for (int l = 0; l < e->p.layers; l++) {
        FN(layer) *y = &e->layer[l];
        const ptrdiff_t bytes = batch * y->outputs * (ptrdiff_t)sizeof(REAL);
        const int separate = y->activation == SILU || y->activation == GELU;
        y->activated = FN(carve)(&scratch, &used, bytes);
        y->preactivated = separate ? FN(carve)(&scratch, &used, bytes) : y->activated;
        y->factors = y->dropout > 0 ? FN(carve)(&scratch, &used, bytes) : NULL;
        y->fed_on = y->dropout > 0 ? FN(carve)(&scratch, &used, bytes) : y->activated;
        if (training) y->gradients = FN(carve)(&scratch, &used, bytes);
    }
    if (!training) return used;
    if (e->split) {
        const FN(layer) *last = &e->layer[e->p.layers - 1];
        const ptrdiff_t bytes = (last->offset + (last->inputs + 1) * outputs) * sizeof(REAL);
        e->parameters = FN(carve)(&scratch, &used, bytes);
        for (int slot = 0; slot < 2; slot++)
            if (e->p.slots[slot]) e->slots[slot] = FN(carve)(&scratch, &used, bytes);
    }
    if (e->p.starts) {
        e->present = FN(carve)(&scratch, &used, e->p.threads * features * words * sizeof(uint64_t));
        e->transposed = FN(carve)(&scratch, &used, e->p.threads * features * batch * sizeof(REAL));
    } else {
        e->batch_inputs = FN(carve)(&scratch, &used, batch * features * sizeof(REAL));
    }
    e->batch_targets = FN(carve)(&scratch, &used, batch * outputs * sizeof(REAL));
    e->batch_labels = FN(carve)(&scratch, &used, batch * sizeof(int64_t));
    e->batch_weight = FN(carve)(&scratch, &used, batch * sizeof(REAL));
    e->block_losses = FN(carve)(&scratch, &used, (batch / ROW_BLOCK + 1) * sizeof(double));
    e->block_right = FN(carve)(&scratch, &used, (batch / ROW_BLOCK + 1) * sizeof(double));
    e->blocks = 0;
    for (int l = 0; l < e->p.layers; l++)
        e->blocks += (e->layer[l].inputs * e->layer[l].outputs + SUM_BLOCK - 1) / SUM_BLOCK +
                     (e->layer[l].outputs + SUM_BLOCK - 1) / SUM_BLOCK;
    e->block_sums = FN(carve)(&scratch, &used, e->blocks * sizeof(double));
    return used;
}

/* Whether rows of weights that no sparse row reaches stay as they are: their gradient is zero, and the
 * rest of the step too where nothing shrinks them and their slots are zero. */
static int FN(dead_stay)(const FN(engine) *e) {
    const FN(layer) *y = e->layer;
    if (e->p.weight_decay != 0 || e->p.l1 != 0 || e->p.l2 != 0 || e->gradients) return 0;
    ptrdiff_t next = 0;
    for (ptrdiff_t i = 0; i < y->inputs; i++) {
        if (next < e->p.live_count && e->p.live[next] == i) {
            next++;
            continue;
        }
        for (int slot = 0; slot < 2; slot++)
            for (ptrdiff_t o = 0; e->slots[slot] && o < y->outputs; o++)
                if (!(e->slots[slot][y->offset + i * y->outputs + o] == 0)) return 0;
    }
    return 1;
}

/* The engine for a plan, without its scratch. */
static FN(engine) FN(prepare)(const plan *p) {
    FN(engine) e = {
        .p = *p,
        .parameters = p->parameters,
        .slots = {p->slots[0], p->slots[1]},
        .gradients = p->gradients,
        .inputs = p->inputs,
        .values = p->values,
        .sample_weight = p->sample_weight,
    };
    ptrdiff_t offset = 0;
    for (int l = 0; l < p->layers; l++) {
        const ptrdiff_t inputs = p->sizes[l], outputs = p->sizes[l + 1];
        e.layer[l] = (FN(layer)){
            .inputs = inputs,
            .outputs = outputs,
            .activation = (int)p->activations[l],
            .slope = p->slopes[l],
            .dropout = p->dropout ? p->dropout[l] : 0,
            .offset = offset,
            /* Softmax looks at whole rows. */
            .by_columns = outputs >= p->threads * LANES && p->activations[l] < SOFTMAX,
        };
        offset += (inputs + 1) * outputs;
    }
    return e;
}

/* Takes the steps of a plan; returns how many there was time for, or -1 where memory or threads are
 * not to be had. */
static ptrdiff_t FN(train)(const plan *p) {
    if (FN(is_thin)(p)) return FN(train_thin)(p);
    FN(engine) e = FN(prepare)(p);
    if (e.p.live && !FN(dead_stay)(&e)) e.p.live = NULL;
    /* Sums over all parameters go by their order in the arrays. */
    e.split = p->threads > 1 && !p->gradients && p->l1 == 0 && p->l2 == 0;
    char *scratch = scratch_memory(FN(lay_out)(&e, NULL, 1));
    if (!scratch) return -1;
    FN(lay_out)(&e, scratch, 1);
    barrier meeting = {.threads = p->threads};
    e.meeting = &meeting;
    const int status = run_threads(FN(train_thread), &e, p->threads);
    free(scratch);
    return status ? -1 : e.done;
}

/* --------------------------------------------------------------------------------- prediction */

typedef struct {
    FN(engine) engine;
    REAL *outputs; /* (n, outputs) */
    char *scratch;
    ptrdiff_t bytes;
} FN(inference);

/* Rows that go through the network together: their activations stay in a core's cache. */
#define INFERENCE_ROWS 96

/* Each thread takes a share of the rows through all layers. */
static void FN(infer_thread)(void *job, int thread) {
    const FN(inference) *all = job;
    FN(engine) e = all->engine;
    const FN(layer) *last = &e.layer[e.p.layers - 1];
    const FN(range) share = FN(share)(e.p.n, INFERENCE_ROWS, thread, e.p.threads);
    FN(lay_out)(&e, all->scratch + thread * all->bytes, 0);
    for (ptrdiff_t start = share.start; start < share.stop; start += INFERENCE_ROWS) {
        const ptrdiff_t left = share.stop - start;
        const FN(range) row = {0, left < INFERENCE_ROWS ? left : INFERENCE_ROWS};
        const REAL *inputs = e.inputs ? e.inputs + start * e.layer[0].inputs : NULL;
        for (int l = 0; l < e.p.layers; l++) {
            const FN(range) column = {0, e.layer[l].outputs};
            FN(forward_part)(&e, l, inputs, NULL, start, row, column);
            inputs = e.layer[l].fed_on;
        }
        memcpy(all->outputs + start * last->outputs, last->activated,
               row.stop * last->outputs * sizeof(REAL));
    }
}

/* outputs (n, outputs) = the network's for all rows of a plan's data; -1 where memory or threads are
 * not to be had. */
static int FN(infer)(const plan *p, REAL *outputs) {
    FN(inference) all = {.engine = FN(prepare)(p), .outputs = outputs};
    all.engine.p.batch = INFERENCE_ROWS;
    all.bytes = FN(lay_out)(&all.engine, NULL, 0);
    char *scratch = scratch_memory(all.bytes * p->threads);
    if (!scratch) return -1;
    all.scratch = scratch;
    const int status = run_threads(FN(infer_thread), &all, p->threads);
    free(scratch);
    return status;
}

#undef INFERENCE_ROWS
#undef ROW_BLOCK
#undef SUM_BLOCK

/* ------------------------------------------------------------------------------- sparse rows */

/* starts (rows + 1,) of the nonzero elements of each row, and their number in all. */
static int64_t FN(count_nonzeros)(const REAL *inputs, ptrdiff_t rows, ptrdiff_t columns,
                                  int64_t *starts) {
    starts[0] = 0;
    for (ptrdiff_t b = 0; b < rows; b++, inputs += columns) {
        int32_t count = 0;
#pragma omp simd reduction(+ : count)
        for (ptrdiff_t i = 0; i < columns; i++) count += inputs[i] != 0;
        starts[b + 1] = starts[b] + count;
    }
    return starts[rows];
}

/* Their columns and values, with room for a vector more; used (columns,) is not 0 for the columns that
 * some row has. */
static void FN(take_nonzeros)(const REAL *inputs, ptrdiff_t rows, ptrdiff_t columns,
                              int32_t *positions, REAL *values, WORD *used) {
    memset(used, 0, columns * sizeof *used);
    for (ptrdiff_t b = 0; b < rows; b++, inputs += columns) {
#pragma omp simd
        for (ptrdiff_t i = 0; i < columns; i++) used[i] |= inputs[i] != 0;
        ptrdiff_t i = 0;
#if SINGLE && defined(__AVX512F__)
        const __m512i ascending =
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (; i + 16 <= columns; i += 16) {
            const __m512 x = _mm512_loadu_ps(inputs + i);
            const __mmask16 there = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
            const __m512i place = _mm512_add_epi32(ascending, _mm512_set1_epi32((int32_t)i));
            _mm512_storeu_ps(values, _mm512_maskz_compress_ps(there, x));
            _mm512_storeu_si512(positions, _mm512_maskz_compress_epi32(there, place));
            values += __builtin_popcount(there);
            positions += __builtin_popcount(there);
        }
#endif
        for (; i < columns; i++) {
            *positions = (int32_t)i;
            *values = inputs[i];
            positions += inputs[i] != 0;
            values += inputs[i] != 0;
        }
    }
}
