/* Whole training loops for one REAL: logistic regression, and networks with one hidden layer.
 *
 * What these loops cost is the exponentials and the latency from one step to the next; so samples
 * run along the vectors, where there are enough of them for every lane.
 */

/* ------------------------------------------------------------------- logistic regression */

#define CHUNK 64 /* samples whose scores are held at a time */

/* Mean cross-entropy of all n samples, from columns (features, n). */
INLINE double FN(logistic_loss)(const REAL *columns, const REAL *targets, const REAL *weights,
                                ptrdiff_t n, ptrdiff_t features) {
    double total = 0;
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        const ptrdiff_t count = n - start < CHUNK ? n - start : CHUNK;
        const REAL *chunk = columns + start;
        REAL score[CHUNK];
        if (features == 6) { /* in one pass, since the compiler does not merge the loops */
#pragma omp simd
            for (ptrdiff_t i = 0; i < count; i++)
                score[i] = ((weights[0] * chunk[i] + weights[1] * chunk[n + i]) +
                            (weights[2] * chunk[2 * n + i] + weights[3] * chunk[3 * n + i])) +
                           (weights[4] * chunk[4 * n + i] + weights[5] * chunk[5 * n + i]);
        } else {
            for (ptrdiff_t i = 0; i < count; i++) score[i] = 0;
            for (ptrdiff_t k = 0; k < features; k++) {
                const REAL weight = weights[k];
#pragma omp simd
                for (ptrdiff_t i = 0; i < count; i++) score[i] += weight * chunk[k * n + i];
            }
        }
#pragma omp simd reduction(+ : total)
        for (ptrdiff_t i = 0; i < count; i++)
            total += FN(softplus)(score[i]) - targets[start + i] * score[i];
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
        REAL error[CHUNK];
        for (ptrdiff_t i = 0; i < count; i++) {
            const REAL *row = inputs + chunk[i] * features;
            REAL score = 0;
            for (ptrdiff_t k = 0; k < features; k++) score += weights[k] * row[k];
            error[i] = score;
        }
        /* Whole vectors, also over unused places: a remainder costs more than they do. */
        const ptrdiff_t padded = (count + LANES - 1) / LANES * LANES;
        for (ptrdiff_t i = count; i < padded; i++) error[i] = 0;
        for (ptrdiff_t i = 0; i < padded; i += LANES)
#pragma omp simd
            for (int lane = 0; lane < LANES; lane++)
                error[i + lane] = FN(sigmoid)(error[i + lane]);
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

/* -------------------------------------------------- one hidden layer, samples as columns */

/* W1 (h, n_x), b1 (h,), W2 (n_y, h), b2 (n_y,) of one network inside a flat array. */
#define PLANAR_SIZE(n_x, h, n_y) ((h) * (n_x) + (h) + (n_y) * (h) + (n_y))

/* One network; hidden (h, m), score (n_y, m) and slope (m,) are scratch. */
INLINE void FN(planar_network)(const REAL *inputs, const REAL *targets, ptrdiff_t h,
                               REAL *parameters, double learning_rate, ptrdiff_t iterations,
                               ptrdiff_t cost_every, REAL *hidden, REAL *score, REAL *slope,
                               double *costs, ptrdiff_t n_x, ptrdiff_t n_y, ptrdiff_t m) {
    REAL *w1 = parameters, *b1 = w1 + h * n_x, *w2 = b1 + h, *b2 = w2 + n_y * h;
    const REAL rate = (REAL)learning_rate, count = (REAL)m;
    for (ptrdiff_t iteration = 0; iteration < iterations; iteration++) {
        for (ptrdiff_t o = 0; o < n_y; o++)
            for (ptrdiff_t i = 0; i < m; i++) score[o * m + i] = b2[o];
        for (ptrdiff_t j = 0; j < h; j++) {
            REAL *row = hidden + j * m;
            if (n_x == 2) {
                const REAL first = w1[2 * j], second = w1[2 * j + 1], bias = b1[j];
#pragma omp simd
                for (ptrdiff_t i = 0; i < m; i++)
                    row[i] = FN(tanh)(first * inputs[i] + second * inputs[m + i] + bias);
            } else {
                for (ptrdiff_t i = 0; i < m; i++) row[i] = b1[j];
                for (ptrdiff_t k = 0; k < n_x; k++) {
                    const REAL weight = w1[j * n_x + k], *x = inputs + k * m;
#pragma omp simd
                    for (ptrdiff_t i = 0; i < m; i++) row[i] += weight * x[i];
                }
                FN(map_tanh)(row, row, m);
            }
            for (ptrdiff_t o = 0; o < n_y; o++) {
                const REAL weight = w2[o * h + j];
                REAL *z = score + o * m;
#pragma omp simd
                for (ptrdiff_t i = 0; i < m; i++) z[i] += weight * row[i];
            }
        }
        if (iteration % cost_every == 0) {
            double cost = 0;
#pragma omp simd reduction(+ : cost)
            for (ptrdiff_t i = 0; i < n_y * m; i++)
                cost += FN(softplus)(score[i]) - targets[i] * score[i];
            costs[iteration / cost_every] = cost / m;
        }
        /* From here `score` holds the loss's gradient in the scores. */
#pragma omp simd
        for (ptrdiff_t i = 0; i < n_y * m; i++) score[i] = FN(sigmoid)(score[i]) - targets[i];
        for (ptrdiff_t j = 0; j < h; j++) {
            const REAL *row = hidden + j * m;
            REAL total = 0;
            if (n_x == 2 && n_y == 1) {
                const REAL weight = w2[j];
                REAL first = 0, second = 0, output = 0;
#pragma omp simd reduction(+ : total, first, second, output)
                for (ptrdiff_t i = 0; i < m; i++) {
                    const REAL y = row[i], dz = weight * score[i] * (1 - y * y);
                    output += score[i] * y;
                    total += dz;
                    first += dz * inputs[i];
                    second += dz * inputs[m + i];
                }
                w2[j] -= rate * (output / count);
                w1[2 * j] -= rate * (first / count);
                w1[2 * j + 1] -= rate * (second / count);
                b1[j] -= rate * (total / count);
                continue;
            }
            for (ptrdiff_t i = 0; i < m; i++) slope[i] = 0;
            for (ptrdiff_t o = 0; o < n_y; o++) {
                const REAL weight = w2[o * h + j], *dz = score + o * m;
                REAL output = 0;
#pragma omp simd reduction(+ : output)
                for (ptrdiff_t i = 0; i < m; i++) {
                    output += dz[i] * row[i];
                    slope[i] += weight * dz[i];
                }
                w2[o * h + j] -= rate * (output / count);
            }
#pragma omp simd reduction(+ : total)
            for (ptrdiff_t i = 0; i < m; i++) {
                slope[i] *= 1 - row[i] * row[i];
                total += slope[i];
            }
            for (ptrdiff_t k = 0; k < n_x; k++) {
                const REAL *x = inputs + k * m;
                REAL sum = 0;
#pragma omp simd reduction(+ : sum)
                for (ptrdiff_t i = 0; i < m; i++) sum += slope[i] * x[i];
                w1[j * n_x + k] -= rate * (sum / count);
            }
            b1[j] -= rate * (total / count);
        }
        for (ptrdiff_t o = 0; o < n_y; o++) {
            const REAL *dz = score + o * m;
            REAL total = 0;
#pragma omp simd reduction(+ : total)
            for (ptrdiff_t i = 0; i < m; i++) total += dz[i];
            b2[o] -= rate * (total / count);
        }
    }
}

static void FN(planar_descent)(const REAL *inputs, const REAL *targets, const int64_t *hidden_sizes,
                               ptrdiff_t networks, REAL *parameters, double learning_rate,
                               ptrdiff_t iterations, ptrdiff_t cost_every, REAL *workspace,
                               double *costs, ptrdiff_t n_x, ptrdiff_t n_y, ptrdiff_t m) {
    const ptrdiff_t recorded = (iterations + cost_every - 1) / cost_every;
    for (ptrdiff_t network = 0; network < networks; network++) {
        const ptrdiff_t h = (ptrdiff_t)hidden_sizes[network];
        REAL *score = workspace, *slope = score + n_y * m, *hidden = slope + m;
        FN(planar_network)(inputs, targets, h, parameters, learning_rate, iterations, cost_every,
                           hidden, score, slope, costs + network * recorded, n_x, n_y, m);
        parameters += PLANAR_SIZE(n_x, h, n_y);
    }
}

#undef PLANAR_SIZE
