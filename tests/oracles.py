"""What the library is tested against: NumPy, plain loops, no code of the library and no automatic differentiation.

The forward equations are written once more, for complex arithmetic, and differentiated by the complex step
∂F/∂p = Im F(p + iε)/ε, which has no cancellation: with ε = 1e-30 it is right to the last digits.
"""

import numpy as np

EPSILON = 1e-30


def tanh(z):
    return np.tanh(z)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return np.where(z.real > 0, z, 0)


PHI = {"tanh": tanh, "relu": relu, "sigmoid": sigmoid}


def linear_step(theta, x, h):
    return np.einsum("nd,...d->...n", theta.W_x, x) + np.einsum("nk,...k->...n", theta.W_h, h)


def elman_step(activation):
    def step(theta, x, h):
        z = np.einsum("nd,...d->...n", theta.W_x, x) + np.einsum("nk,...k->...n", theta.W_h, h) + theta.b
        return PHI[activation](z)

    return step


def leaky_step(activation, alpha):
    def step(theta, x, h):
        rates = PHI[activation](h)
        z = np.einsum("nd,...d->...n", theta.W_x, x) + np.einsum("nk,...k->...n", theta.W_h, rates) + theta.b
        return (1 - np.asarray(alpha)) * h + np.asarray(alpha) * z

    return step


def sine_step(theta, x, h):
    return np.sin(np.einsum("nd,...d->...n", theta.W_x, x) + np.einsum("nk,...k->...n", theta.W_h, h) + theta.b)


def forgetting_step(theta, x, h):
    W, U = (np.einsum("nd,...d->...n", theta[name], x) for name in "WU")
    a = sigmoid(theta["p"] + U)
    return a * h + (1 - a) * tanh(W + theta["b"])


def switched_step(theta, x, h):
    W, U = (np.einsum("nd,...d->...n", theta[name], x) for name in ("W_x", "U"))
    return np.einsum("nk,...k->...n", theta["W_h"], h) + U * h + W


def gru_step(theta, x, h):
    n = h.shape[-1]

    def rows(W, k):
        return W[k * n : (k + 1) * n]

    def x_part(k):
        return np.einsum("nd,...d->...n", rows(theta.W_x, k), x) + rows(theta.b_x, k)

    def h_part(k):
        return np.einsum("nk,...k->...n", rows(theta.W_h, k), h) + rows(theta.b_h, k)

    r = sigmoid(x_part(0) + h_part(0))
    z = sigmoid(x_part(1) + h_part(1))
    new = tanh(x_part(2) + r * h_part(2))
    return (1 - z) * new + z * h


def gru_before_step(theta, x, h):
    n = h.shape[-1]

    def gate(k, read):
        W_x, W_h, b_x, b_h = (leaf[k * n : (k + 1) * n] for leaf in theta)
        return np.einsum("nd,...d->...n", W_x, x) + b_x + np.einsum("nk,...k->...n", W_h, read) + b_h

    r, z = sigmoid(gate(0, h)), sigmoid(gate(1, h))
    return (1 - z) * tanh(gate(2, r * h)) + z * h


def lstm_step(theta, x, state):
    h, c = state
    n = h.shape[-1]

    def z(k):
        W_x, W_h, b = (W[k * n : (k + 1) * n] for W in (theta.W_x, theta.W_h, theta.b))
        return np.einsum("nd,...d->...n", W_x, x) + np.einsum("nk,...k->...n", W_h, h) + b

    c_new = sigmoid(z(1)) * c + sigmoid(z(0)) * tanh(z(2))
    return type(state)(sigmoid(z(3)) * tanh(c_new), c_new)


def states(step, theta_h, xs, h_0):
    """h_0 … h_T as a list."""
    h, out = h_0, [h_0]
    for x in xs:
        h = step(theta_h, x, h)
        out.append(h)
    return out


def half_square(y_hat, y):
    return 0.5 * np.sum((y_hat - y) ** 2, axis=-1)


def objective(step, output, theta_h, theta_o, xs, ys, h_0, mask=None):
    """F = 1/T Σ_t ½‖W_o h_t + b - y_t‖², the mean over the steps that count."""
    total, count = 0.0, 0
    for t, h in enumerate(states(step, theta_h, xs, h_0)[1:]):
        y_hat = np.einsum("mn,...n->...m", theta_o.W_o, output(h)) + (0 if theta_o.b is None else theta_o.b)
        L = half_square(y_hat, ys[t])
        if mask is None:
            total, count = total + np.sum(L), count + np.size(L)
        else:
            total, count = total + np.sum(np.where(mask[t], L, 0)), count + np.sum(mask[t])
    return total / count


def gradient(function, arrays):
    """∂function/∂p for every number of every array, by the complex step. `function` takes the list of arrays."""
    arrays = [np.asarray(array, complex) for array in arrays]
    gradients = []
    for array in arrays:
        bar = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            array[index] += 1j * EPSILON
            bar[index] = np.imag(function(arrays)) / EPSILON
            array[index] -= 1j * EPSILON
        gradients.append(bar)
    return gradients


def central_differences(function, arrays, step=1e-6):
    """The same by real differences: for functions that complex arithmetic can't enter."""
    arrays = [np.array(array, float) for array in arrays]
    gradients = []
    for array in arrays:
        bar = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above = function(arrays)
            array[index] = kept - step
            below = function(arrays)
            array[index] = kept
            bar[index] = (above - below) / (2 * step)
        gradients.append(bar)
    return gradients
