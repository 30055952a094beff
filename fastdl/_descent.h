/* Whole training loops for one REAL: logistic regression, and networks with one hidden layer.
 *
 * What these loops cost is the exponentials and the latency from one step to the next; so samples
 * run along the vectors, where there are enough of them for every lane.
 */

#define V FN(vector)
#define AT(array, i) (*(V *)((array) + (i)))

/* ------------------------------------------------------------------- logistic regression */

#define CHUNK (VECTORS_AT_ONCE * LANES) /* samples whose scores are held at a time */

/* Mean cross-entropy of all n samples, from columns (features, n): max(z, 0) - t*z + ln(1 + e**-|z|),
 * where softplus(z) - t*z would lose what is small beside z. (The path of the weights first and
 * then the losses along it on two threads took 235 microseconds instead of 150 for the course's 100
 * steps: starting a thread costs more than it saves there.) */
INLINE double FN(logistic_loss)(const REAL *columns, const REAL *targets, const REAL *weights,
                                ptrdiff_t n, ptrdiff_t features) {
    double total = 0;
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        const ptrdiff_t count = n - start < CHUNK ? n - start : CHUNK;
        const REAL *chunk = columns + start;
        V score[VECTORS_AT_ONCE] = {{0}}, loss[VECTORS_AT_ONCE];
        if (count == CHUNK) {
            for (ptrdiff_t k = 0; k < features; k++)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS_AT_ONCE; v++)
                    score[v] += weights[k] * AT(chunk, k * n + v * LANES);
        } else {
            REAL *single = (REAL *)score;
            for (ptrdiff_t k = 0; k < features; k++)
                for (ptrdiff_t i = 0; i < count; i++) single[i] += weights[k] * chunk[k * n + i];
        }
        memcpy(loss, score, sizeof loss);
        FN(v_log1p_exp)(VECTORS_AT_ONCE, loss);
        const REAL *losses = (const REAL *)loss, *scores = (const REAL *)score;
#pragma omp simd reduction(+ : total)
        for (ptrdiff_t i = 0; i < count; i++) {
            const REAL z = scores[i];
            total += ((z > 0 ? z : 0) - targets[start + i] * z) + losses[i];
        }
    }
    return total / n;
}

/* gradients (features,) of the mean cross-entropy of the named rows. */
INLINE void FN(logistic_gradients)(const REAL *inputs, const REAL *targets, const REAL *weights,
                                   const int64_t *rows, ptrdiff_t batch, ptrdiff_t features,
                                   REAL *gradients) {
    for (ptrdiff_t k = 0; k < features; k++) gradients[k] = 0;
    for (ptrdiff_t start = 0; start < batch; start += CHUNK) {
        const ptrdiff_t count = batch - start < CHUNK ? batch - start : CHUNK;
        const int64_t *chunk = rows + start;
        REAL error[CHUNK] __attribute__((aligned(64))) = {0};
        for (ptrdiff_t i = 0; i < count; i++) {
            const REAL *row = inputs + chunk[i] * features;
            REAL score = 0;
            for (ptrdiff_t k = 0; k < features; k++) score += weights[k] * row[k];
            error[i] = score;
        }
        /* Whole vectors, the last one also over places that nothing stands in. */
        for (ptrdiff_t i = 0; i < count; i += LANES) FN(v_sigmoid)(1, V_ALONE, &AT(error, i));
        for (ptrdiff_t i = 0; i < count; i++) {
            const REAL *row = inputs + chunk[i] * features;
            const REAL difference = error[i] - targets[chunk[i]];
            for (ptrdiff_t k = 0; k < features; k++) gradients[k] += difference * row[k];
        }
    }
    const REAL count = (REAL)batch;
    for (ptrdiff_t k = 0; k < features; k++) gradients[k] /= count;
}

/* One body for any number of features; inlined with a constant the small loops unroll. */
INLINE void FN(logistic_steps)(const REAL *inputs, const REAL *targets, REAL *weights,
                               const int64_t *batches, ptrdiff_t steps, ptrdiff_t batch, int method,
                               double learning_rate, double decay_, double epsilon_, REAL *state,
                               REAL *gradients, const REAL *columns, REAL *losses, REAL *history,
                               ptrdiff_t n, ptrdiff_t features) {
    const REAL rate = (REAL)learning_rate, keep = (REAL)decay_, take = (REAL)(1 - decay_);
    const REAL epsilon = (REAL)epsilon_;
    for (ptrdiff_t step = 0; step < steps; step++, batches += batch) {
        if (losses) losses[step] = (REAL)FN(logistic_loss)(columns, targets, weights, n, features);
        if (history) memcpy(history + step * features, weights, features * sizeof(REAL));
        FN(logistic_gradients)(inputs, targets, weights, batches, batch, features, gradients);
        for (ptrdiff_t k = 0; k < features; k++) {
            const REAL g = gradients[k];
            if (method == DESCENT_SGD) {
                weights[k] -= rate * g;
            } else if (method == DESCENT_MOMENTUM) {
                state[k] = keep * state[k] + rate * g;
                weights[k] -= state[k];
            } else {
                state[k] = keep * state[k] + take * (g * g);
                weights[k] -= rate * g / FN(square_root)(state[k] + epsilon);
            }
        }
    }
    if (history) memcpy(history + steps * features, weights, features * sizeof(REAL));
}

/* `gradients` (features,) is scratch. */
static void FN(logistic_descent)(const REAL *inputs, const REAL *targets, REAL *weights,
                                 const int64_t *batches, ptrdiff_t steps, ptrdiff_t batch,
                                 int method, double learning_rate, double decay, double epsilon,
                                 REAL *state, REAL *gradients, const REAL *columns, REAL *losses,
                                 REAL *history, ptrdiff_t n, ptrdiff_t features) {
#define STEPS(features, weights, state, gradients)                                              \
    FN(logistic_steps)(inputs, targets, weights, batches, steps, batch, method, learning_rate,  \
                       decay, epsilon, state, gradients, columns, losses, history, n, features)
    if (features == 6) { /* the course's: everything small lives in registers */
        REAL local_weights[6], local_state[6], local_gradients[6];
        memcpy(local_weights, weights, sizeof local_weights);
        memcpy(local_state, state, sizeof local_state);
        STEPS(6, local_weights, local_state, local_gradients);
        memcpy(weights, local_weights, sizeof local_weights);
        memcpy(state, local_state, sizeof local_state);
    } else {
        STEPS(features, weights, state, gradients);
    }
#undef STEPS
}

#undef CHUNK

/* -------------------------------------------------- one hidden layer, samples as columns
 *
 * The samples are cut into a fixed number of blocks. A thread computes the gradient of its blocks,
 * the threads meet, and each adds up all blocks in order and takes the step on a copy of the
 * parameters of its own: one meeting an iteration, and the same numbers for any number of threads.
 * Many networks go to the threads one by one instead. */

#define MOST_BLOCKS 16
#define BLOCK_VECTORS 24 /* vectors of samples from which a second block pays for the meeting */
#define APART ((ptrdiff_t)(BYTES_APART / sizeof(REAL)))

/* Scratch of a network at work. Units of all samples in one matrix, instead of in each block's memory, took an
 * eighth longer on two threads, two fifths by AVX2. */
typedef struct {
    /* Of each block, block_size apart: gradients (2, most_parameters) of even and odd iterations, scores (n_y,
     * block_stride) and hidden units (h, block_stride). */
    REAL *blocks;
    REAL *parameters; /* of each thread, most_parameters + APART apart */
    double *costs;    /* (2, MOST_BLOCKS) */
} FN(planar_place);

typedef struct {
    REAL *inputs, *targets; /* (n_x, stride), (n_y, stride) */
    REAL *valid;            /* (stride,) 1 for a sample, 0 for padding */
    REAL *largest;          /* (n_x,) of each input, without its sign */
    ptrdiff_t n_x, n_y, m, stride, iterations, cost_every;
    REAL rate;
    const int64_t *hidden_sizes;
    ptrdiff_t networks;
    REAL *parameters;
    double *costs;
    ptrdiff_t blocks, block_stride, block_size, most_parameters;
    int threads; /* in all, */
    int sharers; /* and of a network: all of them, or one */
    FN(planar_place) places[MOST_THREADS]; /* of the networks at work at a time */
    barrier *meeting;
    ptrdiff_t *queue; /* (networks,) their numbers */
    atomic_int next;  /* place in it */
} FN(planar_job);

/* What one network's units make of a block of samples. W1 (h, n_x), b1 (h,), W2 (n_y, h), b2 (n_y,) lie one after
 * the other, in the parameters as well as in their gradients. */
typedef struct {
    ptrdiff_t h;
    REAL *hidden;    /* (h, block_stride), from the first of all samples on */
    REAL *score;     /* (n_y, block_stride), the same: the last layer's sums, then their gradients */
} FN(planar_net);

/* The sums of the lanes of LANES vectors, as the lanes of the first: each round adds halves. */
INLINE void FN(v_sums)(V *x) {
#pragma GCC unroll 4
    for (int count = LANES; count > 1; count /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < count / 2; i++)
            x[i] = INTERLEAVE_LOW(x[i], x[i + count / 2]) + INTERLEAVE_HIGH(x[i], x[i + count / 2]);
}

#define UNITS 4 /* hidden units whose sums are kept in registers together */

/* Gradients of hidden units j to j + UNITS - 1, or as many as there are, over samples
 * [start, stop). */
INLINE void FN(planar_gradients)(int units, const FN(planar_job) *job, const FN(planar_net) *net,
                                 const REAL *w2, ptrdiff_t j, ptrdiff_t start, ptrdiff_t stop,
                                 REAL *gradients) {
    const ptrdiff_t h = net->h, stride = job->block_stride;
    const REAL *x = job->inputs, *y = x + job->stride;
    V sum[4 * UNITS] = {{0}}; /* first inputs' weights, second's, biases, outputs' weights */
    for (ptrdiff_t i = start; i < stop; i += LANES) {
        const V error = AT(net->score, i), left = AT(x, i), right = AT(y, i);
#pragma GCC unroll 4
        for (int u = 0; u < units; u++) {
            const V a = AT(net->hidden, (j + u) * stride + i), both = error * a;
            const V slope = error - both * a; /* times w2, at the end */
            sum[u] += slope * left;
            sum[UNITS + u] += slope * right;
            sum[2 * UNITS + u] += slope;
            sum[3 * UNITS + u] += both;
        }
    }
    REAL total[4 * UNITS] __attribute__((aligned(64)));
#pragma GCC unroll 8
    for (int v = 0; v < 4 * UNITS; v += LANES) {
        FN(v_sums)(sum + v);
        AT(total, v) = sum[v];
    }
    for (int u = 0; u < units; u++) {
        gradients[2 * (j + u)] = w2[j + u] * total[u];
        gradients[2 * (j + u) + 1] = w2[j + u] * total[UNITS + u];
        gradients[2 * h + j + u] = w2[j + u] * total[2 * UNITS + u];
        gradients[3 * h + j + u] = total[3 * UNITS + u];
    }
}

/* The same for any number of inputs and outputs, one hidden unit at a time. */
static void FN(planar_gradients_any)(const FN(planar_job) *job, const FN(planar_net) *net,
                                     const REAL *w2, ptrdiff_t j, ptrdiff_t start, ptrdiff_t stop,
                                     REAL *gradients) {
    const ptrdiff_t h = net->h, stride = job->block_stride, n_x = job->n_x;
    REAL *hidden = net->hidden + j * stride;
    V total = {0};
    for (ptrdiff_t o = 0; o < job->n_y; o++) {
        V sum = {0};
        for (ptrdiff_t i = start; i < stop; i += LANES)
            sum += AT(net->score, o * stride + i) * AT(hidden, i);
        gradients[(n_x + 1) * h + o * h + j] = FN(total)(sum);
    }
    for (ptrdiff_t i = start; i < stop; i += LANES) {
        V slope = {0};
        for (ptrdiff_t o = 0; o < job->n_y; o++)
            slope += w2[o * h + j] * AT(net->score, o * stride + i);
        const V a = AT(hidden, i);
        AT(hidden, i) = slope * (1 - a * a); /* the activations are needed no more */
        total += AT(hidden, i);
    }
    gradients[n_x * h + j] = FN(total)(total);
    for (ptrdiff_t k = 0; k < n_x; k++) {
        V sum = {0};
        for (ptrdiff_t i = start; i < stop; i += LANES)
            sum += AT(hidden, i) * AT(job->inputs, k * job->stride + i);
        gradients[j * n_x + k] = FN(total)(sum);
    }
}

/* Activations of hidden unit j for n vectors of samples from i on; adds what the outputs get. */
INLINE void FN(planar_unit)(int n, int how, const FN(planar_job) *job, const FN(planar_net) *net,
                            const REAL *w1, REAL b1, const REAL *w2, ptrdiff_t j, ptrdiff_t i,
                            ptrdiff_t n_x, ptrdiff_t n_y) {
    const ptrdiff_t stride = job->block_stride;
    V a[VECTORS_AT_ONCE];
#pragma GCC unroll 8
    for (int v = 0; v < n; v++) a[v] = FN(v_all)(b1);
    for (ptrdiff_t k = 0; k < n_x; k++)
#pragma GCC unroll 8
        for (int v = 0; v < n; v++)
            a[v] += w1[k] * AT(job->inputs, k * job->stride + i + v * LANES);
    FN(v_tanh)(n, how, a);
#pragma GCC unroll 8
    for (int v = 0; v < n; v++) AT(net->hidden, j * stride + i + v * LANES) = a[v];
    for (ptrdiff_t o = 0; o < n_y; o++)
#pragma GCC unroll 8
        for (int v = 0; v < n; v++)
            AT(net->score, o * stride + i + v * LANES) += w2[o * net->h] * a[v];
}

/* score = (sigmoid(score) - targets), 0 for padding, for n vectors; returns their sum. */
INLINE V FN(planar_error)(int n, int how, REAL *score, const REAL *targets, const REAL *valid) {
    V error[VECTORS_AT_ONCE], sum = {0};
#pragma GCC unroll 8
    for (int v = 0; v < n; v++) error[v] = AT(score, v * LANES);
    FN(v_sigmoid)(n, how, error);
#pragma GCC unroll 8
    for (int v = 0; v < n; v++) {
        error[v] = (error[v] - AT(targets, v * LANES)) * AT(valid, v * LANES);
        AT(score, v * LANES) = error[v];
        sum += error[v];
    }
    return sum;
}

/* Runs call(n) for a number n of vectors that is not known to the compiler. */
#define WITH_VECTORS(n, call)  \
    switch (n) {               \
    case 1: call(1); break;    \
    case 2: call(2); break;    \
    case 3: call(3); break;    \
    case 4: call(4); break;    \
    case 5: call(5); break;    \
    case 6: call(6); break;    \
    case 7: call(7); break;    \
    case 8: call(8); break;    \
    }

/* Whether no hidden unit and no output can be so large that exponents have to be cut off: without that, 3 %
 * less time. NaN and infinities are large. */
INLINE int FN(planar_bounded)(const FN(planar_job) *job, ptrdiff_t h, const REAL *parameters) {
    const ptrdiff_t n_x = job->n_x, n_y = job->n_y;
    const REAL *w1 = parameters, *b1 = w1 + h * n_x, *w2 = b1 + h, *b2 = w2 + n_y * h;
    int bounded = 1;
    for (ptrdiff_t j = 0; j < h; j++) {
        REAL most = FN(absolute)(b1[j]);
        for (ptrdiff_t k = 0; k < n_x; k++) most += FN(absolute)(w1[j * n_x + k]) * job->largest[k];
        bounded &= most < FN(tanh_bound)();
    }
    for (ptrdiff_t o = 0; o < n_y; o++) {
        REAL most = FN(absolute)(b2[o]);
        for (ptrdiff_t j = 0; j < h; j++) most += FN(absolute)(w2[o * h + j]);
        bounded &= most < FN(sigmoid_bound)();
    }
    return bounded;
}

/* Gradients, and the cost where asked for, over samples [start, stop). */
INLINE void FN(planar_block)(const FN(planar_job) *job, const FN(planar_net) *net,
                             const REAL *parameters, int how, ptrdiff_t start, ptrdiff_t stop,
                             REAL *gradients, double *cost, ptrdiff_t n_x, ptrdiff_t n_y) {
    const ptrdiff_t h = net->h, stride = job->block_stride, vectors = (stop - start) / LANES;
    const REAL *w1 = parameters, *b1 = w1 + h * n_x, *w2 = b1 + h, *b2 = w2 + n_y * h;
    /* Groups of nearly equal size, rather than whole ones and a short one. */
    const ptrdiff_t groups = (vectors + VECTORS_AT_ONCE - 1) / VECTORS_AT_ONCE;
    for (ptrdiff_t o = 0; o < n_y; o++)
        for (ptrdiff_t i = start; i < stop; i += LANES)
            AT(net->score, o * stride + i) = FN(v_all)(b2[o]);
    for (ptrdiff_t g = 0; g < groups; g++) {
        const ptrdiff_t from = vectors * g / groups, to = vectors * (g + 1) / groups;
        const ptrdiff_t i = start + from * LANES;
#define UNIT(n)                       \
    for (ptrdiff_t j = 0; j < h; j++) \
    FN(planar_unit)(n, how, job, net, w1 + j * n_x, b1[j], w2 + j, j, i, n_x, n_y)
        WITH_VECTORS(to - from, UNIT)
#undef UNIT
    }
    if (cost) {
        double sum = 0;
        for (ptrdiff_t o = 0; o < n_y; o++)
            for (ptrdiff_t i = start; i < stop; i++) {
                const REAL z = net->score[o * stride + i], t = job->targets[o * job->stride + i];
                if (i < job->m) sum += ((z > 0 ? z : 0) - t * z) + FN(log1p_exp)(z);
            }
        *cost = sum;
    }
    for (ptrdiff_t o = 0; o < n_y; o++) {
        V sum = {0};
        for (ptrdiff_t g = 0; g < groups; g++) {
            const ptrdiff_t from = vectors * g / groups, to = vectors * (g + 1) / groups;
            const ptrdiff_t i = start + from * LANES;
            const REAL *targets = job->targets + o * job->stride + i;
#define ERROR(n) sum += FN(planar_error)(n, how, net->score + o * stride + i, targets, job->valid + i)
            WITH_VECTORS(to - from, ERROR)
#undef ERROR
        }
        gradients[(n_x + 1 + n_y) * h + o] = FN(total)(sum);
    }
    ptrdiff_t j = 0;
    if (n_x == 2 && n_y == 1) {
        for (; j + UNITS <= h; j += UNITS)
            FN(planar_gradients)(UNITS, job, net, w2, j, start, stop, gradients);
        for (; j < h; j++) FN(planar_gradients)(1, job, net, w2, j, start, stop, gradients);
    } else {
        for (; j < h; j++) FN(planar_gradients_any)(job, net, w2, j, start, stop, gradients);
    }
}

/* Trains a network at one of the places, as thread number `thread` of those that share it. */
static void FN(planar_network)(const FN(planar_job) *job, ptrdiff_t network, const FN(planar_place) *place,
                               int thread) {
    const ptrdiff_t n_x = job->n_x, n_y = job->n_y, blocks = job->blocks;
    const int threads = job->sharers;
    ptrdiff_t offset = 0;
    for (ptrdiff_t k = 0; k < network; k++)
        offset += job->hidden_sizes[k] * (n_x + 1 + n_y) + n_y;
    const ptrdiff_t h = job->hidden_sizes[network], size = h * (n_x + 1 + n_y) + n_y;
    REAL *mine = place->parameters + thread * (job->most_parameters + APART);
    /* As a sum with `cost_every`, it could be too large a number. */
    const ptrdiff_t recorded = job->iterations ? (job->iterations - 1) / job->cost_every + 1 : 0;
    const REAL factor = job->rate / (REAL)job->m;
    memcpy(mine, job->parameters + offset, size * sizeof(REAL));
    for (ptrdiff_t iteration = 0; iteration < job->iterations; iteration++) {
        const int record = iteration % job->cost_every == 0;
        const int how = FN(planar_bounded)(job, h, mine) ? V_BOUNDED : V_TOGETHER;
        REAL *gradients = place->blocks + (iteration & 1) * job->most_parameters;
        double *costs = place->costs + (iteration & 1) * MOST_BLOCKS;
        for (ptrdiff_t b = blocks * thread / threads; b < blocks * (thread + 1) / threads; b++) {
            const ptrdiff_t vectors = job->stride / LANES, start = vectors * b / blocks * LANES;
            const ptrdiff_t stop = vectors * (b + 1) / blocks * LANES;
            REAL *score = place->blocks + b * job->block_size + 2 * job->most_parameters;
            const FN(planar_net) net = {
                .h = h,
                .score = score - start,
                .hidden = score + n_y * job->block_stride - start,
            };
            REAL *own = gradients + b * job->block_size;
            double *cost = record ? costs + b : NULL;
            if (n_x == 2 && n_y == 1)
                FN(planar_block)(job, &net, mine, how, start, stop, own, cost, 2, 1);
            else
                FN(planar_block)(job, &net, mine, how, start, stop, own, cost, n_x, n_y);
        }
        if (threads > 1) meet(job->meeting, thread);
        for (ptrdiff_t p = 0; p < size; p++) {
            REAL sum = gradients[p];
            for (ptrdiff_t b = 1; b < blocks; b++) sum += gradients[b * job->block_size + p];
            mine[p] -= factor * sum;
        }
        if (record && thread == 0) {
            double cost = 0;
            for (ptrdiff_t b = 0; b < blocks; b++) cost += costs[b];
            job->costs[network * recorded + iteration / job->cost_every] = cost / job->m;
        }
    }
    /* After no iterations another thread may still be reading them: nothing has met. */
    if (thread == 0 && job->iterations > 0)
        memcpy(job->parameters + offset, mine, size * sizeof(REAL));
}

static void FN(planar_thread)(void *argument, int thread) {
    FN(planar_job) *job = argument;
    if (job->networks == 1) {
        FN(planar_network)(job, 0, job->places, thread);
        return;
    }
    for (;;) {
        const ptrdiff_t taken = atomic_fetch_add(&job->next, 1);
        if (taken >= job->networks) return;
        FN(planar_network)(job, job->queue[taken], job->places + thread, 0);
    }
}

/* queue (networks,) = the networks from the largest to the smallest: of those that take long, none is
 * left to the end, when the other threads have nothing to do. (All threads on the largest first, then
 * one on each, would save the course's sizes 5 % at the most.) */
static void FN(planar_queue)(const int64_t *hidden_sizes, ptrdiff_t networks, ptrdiff_t *queue) {
    for (ptrdiff_t k = 0; k < networks; k++) {
        ptrdiff_t place = k;
        for (; place > 0 && hidden_sizes[queue[place - 1]] < hidden_sizes[k]; place--)
            queue[place] = queue[place - 1];
        queue[place] = k;
    }
}

/* Points the job's arrays into scratch; returns how many bytes that takes. */
static ptrdiff_t FN(planar_lay_out)(FN(planar_job) *job, char *scratch) {
    pieces all = {scratch, BYTES_APART, 0};
    const ptrdiff_t real = sizeof(REAL);
    job->inputs = carve(&all, job->n_x * job->stride * real);
    job->targets = carve(&all, job->n_y * job->stride * real);
    job->valid = carve(&all, job->stride * real);
    job->largest = carve(&all, job->n_x * real);
    job->queue = carve(&all, job->networks * sizeof *job->queue);
    for (int place = 0; place < job->threads / job->sharers; place++)
        job->places[place] = (FN(planar_place)){
            .blocks = carve(&all, job->blocks * job->block_size * real),
            .parameters = carve(&all, job->sharers * (job->most_parameters + APART) * real),
            .costs = carve(&all, 2 * MOST_BLOCKS * sizeof(double)),
        };
    return all.used;
}

/* Returns 0, or -1 where memory or threads are not to be had. */
static int FN(planar_descent)(const REAL *inputs, const REAL *targets, const int64_t *hidden_sizes,
                              ptrdiff_t networks, REAL *parameters, double learning_rate,
                              ptrdiff_t iterations, ptrdiff_t cost_every, int threads,
                              double *costs, ptrdiff_t n_x, ptrdiff_t n_y, ptrdiff_t m) {
    const ptrdiff_t stride = (m + LANES - 1) / LANES * LANES, line = 64 / sizeof(REAL);
    ptrdiff_t blocks = stride / LANES / BLOCK_VECTORS, most_hidden = 1;
    blocks = blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks;
    for (ptrdiff_t k = 0; k < networks; k++)
        if (hidden_sizes[k] > most_hidden) most_hidden = hidden_sizes[k];
    const ptrdiff_t work = networks == 1 ? blocks : networks;
    threads = threads < work ? threads : (int)work;
    const ptrdiff_t most_parameters = (most_hidden * (n_x + 1 + n_y) + n_y + line - 1) / line * line;
    const ptrdiff_t block_stride = (stride / LANES + blocks - 1) / blocks * LANES;
    barrier meeting = {.threads = threads};
    FN(planar_job) job = {
        .n_x = n_x, .n_y = n_y, .m = m, .stride = stride,
        .iterations = iterations, .cost_every = cost_every, .rate = (REAL)learning_rate,
        .hidden_sizes = hidden_sizes, .networks = networks, .parameters = parameters, .costs = costs,
        .blocks = blocks, .block_stride = block_stride,
        .block_size = (2 * most_parameters + (most_hidden + n_y) * block_stride + line - 1) / line * line + APART,
        .most_parameters = most_parameters,
        .threads = threads, .sharers = networks == 1 ? threads : 1, .meeting = &meeting,
    };
    char *scratch = scratch_memory(FN(planar_lay_out)(&job, NULL));
    if (!scratch) return -1;
    FN(planar_lay_out)(&job, scratch);
    FN(planar_queue)(hidden_sizes, networks, job.queue);
    memset(job.inputs, 0, n_x * stride * sizeof(REAL));
    memset(job.targets, 0, n_y * stride * sizeof(REAL));
    for (ptrdiff_t k = 0; k < n_x; k++) {
        memcpy(job.inputs + k * stride, inputs + k * m, m * sizeof(REAL));
        REAL largest = 0;
        for (ptrdiff_t i = 0; i < m; i++) { /* NaN stays */
            const REAL x = FN(absolute)(inputs[k * m + i]);
            largest = x <= largest ? largest : largest == largest ? x : largest;
        }
        job.largest[k] = largest;
    }
    for (ptrdiff_t o = 0; o < n_y; o++)
        memcpy(job.targets + o * stride, targets + o * m, m * sizeof(REAL));
    for (ptrdiff_t i = 0; i < stride; i++) job.valid[i] = i < m;
    const int status = run_threads(FN(planar_thread), &job, threads);
    give_back(scratch);
    return status;
}

#undef WITH_VECTORS
#undef UNITS
#undef MOST_BLOCKS
#undef BLOCK_VECTORS
#undef APART
#undef AT
#undef V
