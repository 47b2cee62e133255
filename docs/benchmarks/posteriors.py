"""Posteriors from simulations against reference posteriors: how well does a classifier tell the two apart?

    pip download --no-deps sbibm==1.1.0 && unzip sbibm-1.1.0-py2.py3-none-any.whl -d FOLDER
    python docs/benchmarks/posteriors.py FOLDER                                   # five tasks, ten observations
    python docs/benchmarks/posteriors.py FOLDER two_moons,slcp 1,2,3 10000 0,1     # tasks, observations, rows, seeds

The wheel of sbibm (Lueckmann et al., 2021) holds the observations and draws from their posteriors, by exact or very
long sampling; the package need not be installed. The simulators are written out below. One forecaster with its defaults
is fitted to pairs of simulations and parameters, and asked for 2,000 draws for each observation. C2ST is the accuracy
of a network with two hidden layers that tells these from 2,000 of the reference: .5 is perfect. It is that of sbibm
save for its early stopping. KL is what the log-density of 1,000 fresh pairs lacks of the exact one, in nats, where
there is one. Run with OMP_NUM_THREADS=1; seconds are CPU seconds.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

N_DRAWS = 2000
N_FRESH = 1000


def two_moons(n, rng, folder):
    """A crescent around a point that two values of the parameters share."""
    theta = rng.uniform(-1, 1, (n, 2))
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
    crescent = np.column_stack([np.cos(angle) * radius + 0.25, np.sin(angle) * radius])
    total, difference = theta.sum(axis=1) / np.sqrt(2), (theta[:, 1] - theta[:, 0]) / np.sqrt(2)
    return theta, crescent + np.column_stack([-np.abs(total), difference])


def gaussian_linear(n, rng, folder):
    """Ten parameters, each observed with as much noise as it varies."""
    theta = rng.normal(0, np.sqrt(0.1), (n, 10))
    return theta, theta + rng.normal(0, np.sqrt(0.1), (n, 10))


def gaussian_mixture(n, rng, folder):
    """A location, observed with much or with little noise."""
    theta = rng.uniform(-10, 10, (n, 2))
    return theta, theta + rng.choice([1.0, 0.1], (n, 1)) * rng.normal(size=(n, 2))


def slcp(n, rng, folder):
    """Four draws from a normal distribution in the plane, of which five parameters are mean and covariance."""
    theta = rng.uniform(-3, 3, (n, 5))
    first, second, correlation = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
    noise = rng.normal(size=(n, 4, 2))
    rest = correlation[:, None] * noise[..., 0] + np.sqrt(1 - correlation**2)[:, None] * noise[..., 1]
    x = theta[:, None, :2] + np.stack([first[:, None] * noise[..., 0], second[:, None] * rest], axis=-1)
    return theta, x.reshape(n, 8)


def bernoulli_glm(n, rng, folder):
    """Spikes of a neuron by its filter of a stimulus, summed up by their number and what came before them."""
    import torch

    files = folder / "sbibm" / "tasks" / "bernoulli_glm" / "files"
    design, stimulus = (torch.load(files / f"{name}.pt").double().numpy() for name in ("design_matrix", "stimulus_I"))
    second = np.linalg.matrix_power(np.eye(9) - np.eye(9, k=-1), 2) + np.diag(np.sqrt(np.arange(9) / 9))
    precision = np.zeros((10, 10))
    precision[0, 0], precision[1:, 1:] = 0.5, second.T @ second
    theta = rng.multivariate_normal(np.zeros(10), np.linalg.inv(precision), n)
    spikes = rng.random((n, 100)) < 1 / (1 + np.exp(-theta @ design.T))
    padded = np.pad(spikes, ((0, 0), (8, 8)))
    triggered = np.stack([padded[:, i : i + 100] @ stimulus for i in range(8, 17)], axis=1)
    return theta, np.column_stack([spikes.sum(axis=1), triggered])


def log_posterior(task, theta, x):
    """The exact log-density, where there is a closed form."""
    if task == "gaussian_linear":
        return multivariate_normal(np.zeros(10), 0.05 * np.eye(10)).logpdf(theta - x / 2)
    return np.full(len(theta), np.nan)


def c2st(first, second):
    """Accuracy of a classifier, cross-validated: .5 where it cannot tell the two apart."""
    mean, scale, d = first.mean(axis=0), first.std(axis=0), first.shape[1]
    rows, labels = (np.concatenate([first, second]) - mean) / scale, np.repeat([0, 1], [len(first), len(second)])
    stop = {"max_iter": 300, "early_stopping": True, "n_iter_no_change": 20}
    network = MLPClassifier(hidden_layer_sizes=(10 * d, 10 * d), random_state=1, **stop)
    return cross_val_score(network, rows, labels, cv=KFold(5, shuffle=True, random_state=1)).mean()


def reference(folder, task, observation):
    """The observation x (d,) and draws from its posterior (2000, p)."""
    files = folder / "sbibm" / "tasks" / task / "files" / f"num_observation_{observation}"
    draws = pd.read_csv(files / "reference_posterior_samples.csv.bz2")
    return pd.read_csv(files / "observation.csv").to_numpy()[0], draws.to_numpy()[:N_DRAWS]


def measure(folder, task, observations, n_rows, seed):
    """A row of the table, printed."""
    from flowmatch import ConditionalForecaster

    theta, x = TASKS[task](n_rows, np.random.default_rng(seed), folder)
    started = time.process_time()
    forecaster = ConditionalForecaster(random_state=seed).fit(x, theta)
    seconds, found = time.process_time() - started, []
    for observation in observations:
        x_o, draws = reference(folder, task, observation)
        found.append(c2st(draws, forecaster.sample(x_o[None], N_DRAWS, random_state=seed)[:, 0]))
    theta, x = TASKS[task](N_FRESH, np.random.default_rng(10_000 + seed), folder)
    log_density = forecaster.score_samples(x, theta)
    kl = np.mean(log_posterior(task, theta, x) - log_density)
    print(
        f"| {task} | {n_rows} | {seed} | {np.mean(found):.3f} | {min(found):.2f} - {max(found):.2f} | "
        f"{log_density.mean():.3f} | {kl:.3f} | {forecaster.n_iter_} | {seconds:.0f} |",
        flush=True,
    )


TASKS = {task.__name__: task for task in (two_moons, gaussian_mixture, gaussian_linear, slcp, bernoulli_glm)}


def main(folder, tasks="all", observations="1,2,3,4,5,6,7,8,9,10", n_rows="10000", seeds="0"):
    warnings.filterwarnings("ignore")
    print("| task | simulations | seed | C2ST | over observations | log-density | KL | steps | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for task in TASKS if tasks == "all" else tasks.split(","):
        for seed in seeds.split(","):
            measure(Path(folder), task, observations.split(","), int(n_rows), int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
