"""The training loops of the first two assignments.

"NumPy" is the loop as people have it in their notebooks, function by function; "NumPy (tuned)" is
the best that we found to do in whole-array operations. Numba compiles the tuned loop as it stands,
and "Numba (loops)" the same work written out element by element; JAX compiles its own into one
call. These take the rows that the steps draw as an array, as fastdl does inside. All make the draws
in the timed call, from NumPy's global state.
"""

import functools

import numpy as np

from fastdl import backends, datasets
from fastdl.assignments import linear, planar

from . import SEED, Job

RATE, DECAY, BATCH = 0.05, 0.9, 4
HIDDEN, PLANAR_RATE = 4, 1.2


def jobs():
    return [
        logistic_job("momentum, 100 steps, the loss at each", 0.9, 100, record=True),
        logistic_job("SGD, 1,000 steps", 0.0, 1000, record=False),
        planar_job(),
    ]


# ------------------------------------------------------------- logistic regression in mini-batches


def logistic_job(name, decay, steps, record):
    """SGD (`decay` 0) or momentum on 826 points, 4 to a batch, with or without the loss on all."""
    points, y = datasets.load_circle(n_samples=826, seed=0)
    X, y = linear.expand(points), np.asarray(y, np.float64)
    descents = {
        "fastdl": fastdl_descent,
        "fastdl (numba)": _on_numba(fastdl_descent),
        "NumPy": numpy_descent,
        "NumPy (tuned)": tuned_descent,
        "Numba": numba_descent(),
        "Numba (loops)": numba_loop_descent(),
        "JAX": jax_descent(),
    }
    return Job(
        name,
        {
            library: functools.partial(descent, X, y, decay, record)
            for library, descent in descents.items()
        },
        size=steps,
        check_size=steps,
        agree=functools.partial(_agree, tolerance=1e-9),
    )


def fastdl_descent(X, y, decay, record, steps):
    if decay:
        return linear.momentum(
            X, y, eta=RATE, alpha=decay, n_iter=steps, batch_size=BATCH, losses=record
        )
    return linear.sgd(X, y, eta=RATE, n_iter=steps, batch_size=BATCH, losses=record)


def numpy_descent(X, y, decay, record, steps):
    def probability(X, w):
        return 1 / (1 + np.exp(-X @ w))

    def compute_loss(X, y, w):
        p = probability(X, w)
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))

    def compute_grad(X, y, w):
        return (probability(X, w) - y) @ X / X.shape[0]

    w = np.array([0, 0, 0, 0, 0, 1])
    nu = np.zeros(6)
    losses = np.zeros(steps) if record else None
    for i in range(steps):
        ind = np.random.choice(X.shape[0], BATCH)
        if record:
            losses[i] = compute_loss(X, y, w)
        dw = compute_grad(X[ind, :], y[ind], w)
        if decay:
            nu = decay * nu + RATE * dw
            w = w - nu
        else:
            w = w - RATE * dw
    return w, losses


def tuned_descent(X, y, decay, record, steps):
    w, velocity = np.array([0.0, 0, 0, 0, 0, 1]), np.zeros(6)
    losses = np.zeros(steps) if record else None
    for step, rows in enumerate(_draws(X, steps)):
        if record:
            scores = X @ w
            losses[step] = (np.logaddexp(0, scores).sum() - y @ scores) / len(y)
        x = X[rows]
        gradient = (1 / (1 + np.exp(-(x @ w))) - y[rows]) @ x
        if decay:
            velocity *= decay
            velocity += RATE / BATCH * gradient
            w -= velocity
        else:
            w -= RATE / BATCH * gradient
    return w, losses


def _with_draws(compiled):
    """What is called as the other loops are, from one that takes its batches drawn."""

    def descend(X, y, decay, record, steps):
        w, losses = compiled()(X, y, _draws(X, steps), decay, record)
        return w, losses if record else None

    return descend


def numba_descent():
    @_lazily
    def compiled():
        import numba

        @numba.njit
        def descend(X, y, batches, decay, record):
            w = np.array([0.0, 0, 0, 0, 0, 1])
            velocity = np.zeros(6)
            losses = np.zeros(len(batches) if record else 0)
            for step in range(len(batches)):
                if record:
                    scores = X @ w
                    losses[step] = (np.logaddexp(0, scores).sum() - y @ scores) / len(y)
                x = X[batches[step]]
                gradient = (1 / (1 + np.exp(-(x @ w))) - y[batches[step]]) @ x
                velocity *= decay
                velocity += RATE / BATCH * gradient
                w -= velocity
            return w, losses

        return descend

    return _with_draws(compiled)


def numba_loop_descent():
    @_lazily
    def compiled():
        import numba

        @numba.njit(fastmath=True)
        def descend(X, y, batches, decay, record):
            n, width = X.shape
            w = np.zeros(width)
            w[-1] = 1
            velocity = np.zeros(width)
            gradient = np.empty(width)
            losses = np.zeros(len(batches) if record else 0)
            for step in range(len(batches)):
                if record:
                    total = 0.0
                    for i in range(n):
                        score = 0.0
                        for j in range(width):
                            score += X[i, j] * w[j]
                        softplus = max(score, 0.0) + np.log1p(np.exp(-abs(score)))
                        total += softplus - y[i] * score
                    losses[step] = total / n
                gradient[:] = 0
                for i in batches[step]:
                    score = 0.0
                    for j in range(width):
                        score += X[i, j] * w[j]
                    difference = 1 / (1 + np.exp(-score)) - y[i]
                    for j in range(width):
                        gradient[j] += difference * X[i, j]
                for j in range(width):
                    velocity[j] = decay * velocity[j] + RATE / BATCH * gradient[j]
                    w[j] -= velocity[j]
            return w, losses

        return descend

    return _with_draws(compiled)


def jax_descent():
    @_lazily
    def compiled():
        jax = _jax()
        jnp = jax.numpy

        @functools.partial(jax.jit, static_argnames=("decay", "record"))
        def descend(X, y, batches, decay, record):
            def step(state, rows):
                w, velocity = state
                loss = None
                if record:
                    scores = X @ w
                    loss = jnp.mean(jax.nn.softplus(scores) - y * scores)
                x = X[rows]
                gradient = (jax.nn.sigmoid(x @ w) - y[rows]) @ x / BATCH
                velocity = decay * velocity + RATE * gradient
                return (w - velocity, velocity), loss

            start = jnp.array([0.0, 0, 0, 0, 0, 1]), jnp.zeros(6)
            (w, _), losses = jax.lax.scan(step, start, batches)
            return w, losses

        return descend

    def descend(X, y, decay, record, steps):
        return _jax().block_until_ready(compiled()(X, y, _draws(X, steps), decay, record))

    return descend


def _draws(X, steps):
    return np.random.choice(X.shape[0], (steps, BATCH))


# ------------------------------------------------------------------------- one hidden layer, planar


def planar_job():
    """`nn_model` on the flower: 2-4-1, 400 points, full-batch gradient descent.

    Past iteration 7000 the trajectory is chaotic, so the results are compared well before that.
    """
    X, Y = planar.load_planar_dataset()
    np.random.seed(SEED)
    start = planar.initialize_parameters(X.shape[0], HIDDEN, Y.shape[0])
    return Job(
        "nn_model, 4 hidden units, 10,000 iterations",
        {
            "fastdl": functools.partial(fastdl_planar, X, Y),
            "fastdl (numba)": _on_numba(functools.partial(fastdl_planar, X, Y)),
            "NumPy": functools.partial(numpy_planar, X, Y, start),
            "NumPy (tuned)": functools.partial(tuned_planar, X, Y.astype(X.dtype), start),
            "Numba": numba_planar(X, Y.astype(X.dtype), start),
            "Numba (loops)": numba_loop_planar(X, Y.astype(X.dtype), start),
            "JAX": jax_planar(X, Y.astype(X.dtype), start),
        },
        size=10_000,
        check_size=1000,
        agree=functools.partial(_agree, tolerance=1e-6),
    )


def fastdl_planar(X, Y, iterations):
    parameters = planar.nn_model(X, Y, HIDDEN, num_iterations=iterations, learning_rate=PLANAR_RATE)
    return tuple(parameters[name] for name in ("W1", "b1", "W2", "b2"))


def numpy_planar(X, Y, start, iterations):
    def forward_propagation(X, parameters):
        Z1 = np.dot(parameters["W1"], X) + parameters["b1"]
        A1 = np.tanh(Z1)
        Z2 = np.dot(parameters["W2"], A1) + parameters["b2"]
        A2 = 1 / (1 + np.exp(-Z2))
        return A2, {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2}

    def compute_cost(A2, Y):
        logprobs = np.multiply(np.log(A2), Y) + np.multiply(np.log(1 - A2), 1 - Y)
        return float(np.squeeze(-np.sum(logprobs) / Y.shape[1]))

    def backward_propagation(parameters, cache, X, Y):
        m = X.shape[1]
        A1, A2 = cache["A1"], cache["A2"]
        dZ2 = A2 - Y
        dW2 = np.dot(dZ2, A1.T) / m
        db2 = np.sum(dZ2, axis=1, keepdims=True) / m
        dZ1 = np.dot(parameters["W2"].T, dZ2) * (1 - np.power(A1, 2))
        dW1 = np.dot(dZ1, X.T) / m
        db1 = np.sum(dZ1, axis=1, keepdims=True) / m
        return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}

    parameters = start
    for _ in range(iterations):
        A2, cache = forward_propagation(X, parameters)
        compute_cost(A2, Y)
        grads = backward_propagation(parameters, cache, X, Y)
        parameters = {name: parameters[name] - PLANAR_RATE * grads[name] for name in parameters}
    return tuple(parameters[name] for name in ("W1", "b1", "W2", "b2"))


def tuned_planar(X, Y, start, iterations):
    W1, b1, W2, b2 = (start[name].copy() for name in ("W1", "b1", "W2", "b2"))
    m = X.shape[1]
    for _ in range(iterations):
        A1 = np.tanh(W1 @ X + b1)
        dZ2 = 1 / (1 + np.exp(-(W2 @ A1 + b2))) - Y
        dZ1 = (W2.T @ dZ2) * (1 - A1 * A1)
        W2 -= PLANAR_RATE / m * (dZ2 @ A1.T)
        b2 -= PLANAR_RATE / m * dZ2.sum(axis=1, keepdims=True)
        W1 -= PLANAR_RATE / m * (dZ1 @ X.T)
        b1 -= PLANAR_RATE / m * dZ1.sum(axis=1, keepdims=True)
    return W1, b1, W2, b2


def numba_planar(X, Y, start):
    @_lazily
    def compiled():
        import numba

        @numba.njit
        def descend(X, Y, W1, b1, W2, b2, iterations):
            m = X.shape[1]
            for _ in range(iterations):
                A1 = np.tanh(W1 @ X + b1)
                dZ2 = 1 / (1 + np.exp(-(W2 @ A1 + b2))) - Y
                dZ1 = (W2.T @ dZ2) * (1 - A1 * A1)
                W2 = W2 - PLANAR_RATE / m * (dZ2 @ A1.T)
                b2 = b2 - PLANAR_RATE / m * dZ2.sum(axis=1).reshape(-1, 1)
                W1 = W1 - PLANAR_RATE / m * (dZ1 @ X.T)
                b1 = b1 - PLANAR_RATE / m * dZ1.sum(axis=1).reshape(-1, 1)
            return W1, b1, W2, b2

        return descend

    parameters = [start[name] for name in ("W1", "b1", "W2", "b2")]
    return lambda iterations: compiled()(np.ascontiguousarray(X), Y, *parameters, iterations)


def numba_loop_planar(X, Y, start):
    @_lazily
    def compiled():
        import numba

        @numba.njit(fastmath=True)
        def descend(X, Y, W1, b1, W2, b2, iterations):
            (features, m), hidden = X.shape, len(W1)
            activated, above = np.empty((hidden, m)), np.empty(m)
            for _ in range(iterations):
                above[:] = b2[0, 0]
                for k in range(hidden):
                    for i in range(m):
                        z = b1[k, 0]
                        for j in range(features):
                            z += W1[k, j] * X[j, i]
                        activated[k, i] = np.tanh(z)
                        above[i] += W2[0, k] * activated[k, i]
                total = 0.0
                for i in range(m):
                    above[i] = 1 / (1 + np.exp(-above[i])) - Y[0, i]
                    total += above[i]
                b2[0, 0] -= PLANAR_RATE / m * total
                for k in range(hidden):
                    weight, dW2, db1, dW1 = W2[0, k], 0.0, 0.0, np.zeros(features)
                    for i in range(m):
                        a = activated[k, i]
                        below = weight * above[i] * (1 - a * a)
                        dW2 += above[i] * a
                        db1 += below
                        for j in range(features):
                            dW1[j] += below * X[j, i]
                    W2[0, k] -= PLANAR_RATE / m * dW2
                    b1[k, 0] -= PLANAR_RATE / m * db1
                    for j in range(features):
                        W1[k, j] -= PLANAR_RATE / m * dW1[j]
            return W1, b1, W2, b2

        return descend

    def run(iterations):
        parameters = [start[name].copy() for name in ("W1", "b1", "W2", "b2")]
        return compiled()(np.ascontiguousarray(X), Y, *parameters, iterations)

    return run


def jax_planar(X, Y, start):
    @_lazily
    def compiled():
        jax = _jax()
        jnp = jax.numpy
        x, y = jnp.asarray(X), jnp.asarray(Y)
        m = x.shape[1]

        def step(_, parameters):
            W1, b1, W2, b2 = parameters
            A1 = jnp.tanh(W1 @ x + b1)
            dZ2 = jax.nn.sigmoid(W2 @ A1 + b2) - y
            dZ1 = (W2.T @ dZ2) * (1 - A1 * A1)
            return (
                W1 - PLANAR_RATE / m * (dZ1 @ x.T),
                b1 - PLANAR_RATE / m * dZ1.sum(axis=1, keepdims=True),
                W2 - PLANAR_RATE / m * (dZ2 @ A1.T),
                b2 - PLANAR_RATE / m * dZ2.sum(axis=1, keepdims=True),
            )

        return jax.jit(
            lambda parameters, iterations: jax.lax.fori_loop(0, iterations, step, parameters),
            static_argnums=1,
        )

    parameters = tuple(start[name] for name in ("W1", "b1", "W2", "b2"))
    return lambda iterations: _jax().block_until_ready(compiled()(parameters, iterations))


# ------------------------------------------------------------------------------------------ common


def _lazily(make):
    """Import and compile when first called: a library that is not installed does no harm."""
    return functools.cache(make)


def _on_numba(function):
    def run(*arguments):
        with backends.use_backend("numba"):
            return function(*arguments)

    return run


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def _agree(actual, expected, *, tolerance):
    for one, other in zip(actual, expected, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
