"""What a training strategy changes, against the plain fit ("l2") with as many optimizer steps.

``OMP_NUM_THREADS=1 python strategies.py NAME... [--data fronts] [--seeds 0,1] [--steps 400]`` prints a markdown row
for each strategy; ``all`` stands for every loss, ``floor`` for real data in place of samples. "loss" is the plain loss
on held-out data, whatever the strategy. Every fit has a process of its own; MiB is what its peak of resident memory
grows by in training (Linux).

Fields are periodic, on a 16 x 16 grid, made here:

* ``power-law``: Gaussian, energy spectrum E(k) ~ k^-3, as of two-dimensional turbulence.
* ``fronts``: ``tanh(2 g)`` of a smooth Gaussian field g: plateaus between steep fronts, not Gaussian.
* ``detail``: two channels, the first a power-law field, the second a tenth of white noise times its gradient. Not
  standardized, so that the second channel hardly counts in the plain loss.

Signals have 256 points, and a tenth of white noise in them:

* ``ringing``: a resonance that noise keeps going, its frequency drawn for each signal; all points are alike.
* ``impacts``: three resonances that are struck between points 32 and 64 and decay.

``digits`` are scikit-learn's, 8 x 8, conditional on the label: 1000 to train on, 400 to measure against.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import sliced_wasserstein
from flowmatch.networks import UNet
from flowmatch.objectives import ChannelWeighted, MultiScale, Sobolev
from flowmatch.training import Phase, TrainingOptions

SIZE, LENGTH, N_TRAIN, N_TEST = 16, 256, 2048, 512
PERIODIC = {"boundary": "periodic"}

PROGRESSIVE = [
    Phase(0.3, conditioned=False),
    Phase(0.4, loss_weight="adaptive", conditioned=False),
    Phase(0.3, learning_rate=0.1),
]
GROWING = [Phase(0.2, crop=0.25), Phase(0.3, crop=0.5), Phase(0.5)]

STRATEGIES = {
    "l2": {},
    "sobolev 0.25": {"loss": Sobolev(beta=0.25, **PERIODIC)},
    "sobolev 1": {"loss": Sobolev(beta=1.0, **PERIODIC)},
    "sobolev 4": {"loss": Sobolev(beta=4.0, **PERIODIC)},
    "sobolev t^2": {"loss": Sobolev(beta=lambda t: t.square(), **PERIODIC)},
    "sobolev (1-t)^2": {"loss": Sobolev(beta=lambda t: (1 - t).square(), **PERIODIC)},
    "multiscale": {"loss": MultiScale()},
    "channels 1:3": {"loss": ChannelWeighted((1, 3))},
    "channels 1:10": {"loss": ChannelWeighted((1, 10))},
    "channels 1:100": {"loss": ChannelWeighted((1, 100))},
    "channels 10:1": {"loss": ChannelWeighted((10, 1))},
    "phases": {"training": TrainingOptions(phases=PROGRESSIVE)},
    "phases, constant rate": {"training": TrainingOptions(phases=PROGRESSIVE, schedule="constant")},
    "phases, full constant rate": {
        "training": TrainingOptions(phases=[*PROGRESSIVE[:2], Phase(0.3)], schedule="constant")
    },
    "phases, conditions in all": {
        "training": TrainingOptions(phases=[Phase(0.3), Phase(0.4, loss_weight="adaptive"), PROGRESSIVE[2]])
    },
    "curriculum": {"training": TrainingOptions(phases=GROWING)},
    "accumulation 4 x 16": {"batch_size": 16, "training": TrainingOptions(accumulation=4)},
    "bf16": {"training": TrainingOptions(precision="bf16")},
}
"""Parameters of the estimator by name of the strategy."""


def main():
    """Print a table of the strategies that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*STRATEGIES, "floor", "all"])
    parser.add_argument("--data", choices=DATA, default="fronts")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    losses = [name for name, parameters in STRATEGIES.items() if "training" not in parameters]
    names = losses if options.names == ["all"] else options.names
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for name in names:
            runs = [pool.apply(run, (name, options, seed)) for seed in seeds]
            if name == names[0]:
                columns = [options.data, *runs[0]]
                print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
            values = np.array([list(measures.values()) for measures in runs])
            means, spans = values.mean(axis=0), np.ptp(values, axis=0) / 2
            cells = [f"{mean:.3g} ± {span:.1g}" for mean, span in zip(means[:-2], spans[:-2], strict=True)]
            print(f"| {name} | {' | '.join(cells)} | {means[-2]:.0f} | {means[-1]:.0f} |", flush=True)


def run(name, options, seed):
    """The measures of one fit by their names; CPU seconds and MiB come last."""
    data = DATA[options.data]
    (train, labels), (test, asked), (spare, spare_asked) = data.draw(seed)
    if name == "floor":
        return {"loss": np.nan, **data.judge(spare, spare_asked, train, labels, test), "CPU s": 0.0, "MiB": 0.0}
    settings = {
        "network": UNet(width=options.width, **data.network),
        "preprocessing": "none",
        "time_sampler": "stratified",
        "max_iter": options.steps,
        "learning_rate": 2e-3,
        "random_state": seed,
        "device": "cpu",
        **data.settings,
        **STRATEGIES[name],
    }
    y = None if labels is None else labels[:200]
    FlowMatchingGenerator(**{**settings, "max_iter": 1, "batch_size": 4}).fit(train[:200], y)  # loads kernels
    memory, start = peak(), time.process_time()
    model = FlowMatchingGenerator(**settings).fit(train, labels)
    costs = {"CPU s": time.process_time() - start, "MiB": peak() - memory}
    if asked is None:
        samples = model.sample(N_TEST, random_state=seed)
    else:
        samples = model.sample(len(asked), y=asked, random_state=seed)
    return {"loss": plain_loss(model, test, asked), **data.judge(samples, asked, train, labels, test), **costs}


def peak():
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def plain_loss(model, test, labels):
    """Mean squared error of the velocity on data held out, for the same noise and times whatever the strategy."""
    x1 = torch.as_tensor(test, dtype=torch.float32)
    x0 = torch.randn(x1.shape, generator=torch.Generator().manual_seed(0))
    t = (torch.arange(len(x1)) + 0.5) / len(x1)
    at = t.reshape(-1, *[1] * (x1.ndim - 1))
    condition = None if labels is None else torch.nn.functional.one_hot(torch.as_tensor(labels)).float()
    velocity = model.network_(at * x1 + (1 - at) * x0, t, condition)
    return float((velocity - (x1 - x0)).square().mean())


# -- data ---------------------------------------------------------------------------------------------------------


def gaussian(n, slope, rng):
    """Periodic Gaussian fields of variance 1 whose energy in shells goes as k^-slope, (n, SIZE, SIZE)."""
    k = wavenumbers()
    amplitude = np.where(k > 0, np.maximum(k, 1.0) ** (-(slope + 1) / 2), 0.0)
    fields = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, SIZE, SIZE))) * amplitude).real
    return fields / np.sqrt((amplitude**2).mean())


def wavenumbers():
    """|k| on the grid of the discrete Fourier transform, in cycles per box."""
    k = np.fft.fftfreq(SIZE, 1 / SIZE)
    return np.hypot(k[:, None], k[None])


def power_law(n, seed):
    """Gaussian fields with E(k) ~ k^-3."""
    return gaussian(n, 3.0, np.random.default_rng(seed))[:, None]


def fronts(n, seed):
    """Plateaus and fronts."""
    return np.tanh(2 * gaussian(n, 5.0, np.random.default_rng(seed)))[:, None]


def detail(n, seed):
    """A power-law field, and small noise where it is steep."""
    rng = np.random.default_rng(seed)
    field = gaussian(n, 3.0, rng)
    steepness = np.hypot(np.roll(field, -1, 1) - field, np.roll(field, -1, 2) - field)
    return np.stack([field, 0.1 * steepness * rng.normal(size=field.shape)], axis=1)


def ringing(n, seed):
    """Noise through a resonance of quality 2 pi f / 0.06, with f between 0.05 and 0.2 cycles a point."""
    rng = np.random.default_rng(seed)
    f, f0 = np.fft.rfftfreq(2 * LENGTH), rng.uniform(0.05, 0.2, size=(n, 1))
    response = 1 / (f0**2 - f**2 + 0.06j / (2 * np.pi) * f)
    response /= np.sqrt((np.abs(response) ** 2).mean(axis=1, keepdims=True))
    signals = np.fft.irfft(np.fft.rfft(rng.normal(size=(n, 2 * LENGTH))) * response)[:, :LENGTH]
    return (signals + 0.1 * rng.normal(size=signals.shape))[:, None]


def impacts(n, seed):
    """Struck resonances: frequencies 0.03 to 0.2 cycles a point, decay times 15 to 60 points."""
    rng = np.random.default_rng(seed)
    after = np.arange(LENGTH) - rng.uniform(32, 64, size=(n, 1))
    signals = 0.1 * rng.normal(size=after.shape)
    for low, high in ((0.03, 0.06), (0.08, 0.11), (0.15, 0.2)):
        f, decay, height = (rng.uniform(*ends, size=(n, 1)) for ends in ((low, high), (15, 60), (0.5, 1.5)))
        signals += np.where(after > 0, height * np.exp(-after.clip(0) / decay) * np.sin(2 * np.pi * f * after), 0.0)
    return signals[:, None]


def without_labels(draw, seed):
    """Data to train on, to measure against, and for the floor, with None for labels."""
    return (draw(N_TRAIN, seed), None), (draw(N_TEST, 1000 + seed), None), (draw(N_TEST, 2000 + seed), None)


def digits(seed):
    """The same for digits and their labels; pixels in [-1, 1]."""
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(rows, [1000, 1400])
    return tuple((images[part].reshape(-1, 1, 8, 8) / 8 - 1, labels[part]) for part in parts)


# -- measures -----------------------------------------------------------------------------------------------------


def by_channel(measures, samples, asked, train, labels, test):
    """Each of the measures for each channel."""
    n_channels = test.shape[1]
    return {
        f"{name} {c + 1}" if n_channels > 1 else name: measure(samples[:, c], test[:, c])
        for c in range(n_channels)
        for name, measure in measures.items()
    }


def spectrum(fields):
    """Mean energy of the shells k = 1 ... SIZE / 2, rounded to whole wavenumbers."""
    energy = (np.abs(np.fft.fft2(fields)) ** 2).mean(axis=0)
    shells = np.rint(wavenumbers()).astype(int)
    return np.array([energy[shells == k].sum() for k in range(1, SIZE // 2 + 1)])


def spectral_distance(shells):
    """Root mean square of the spectra's ratio in decibels over some shells."""

    def distance(samples, test):
        ratio = 10 * np.log10(spectrum(samples) / spectrum(test))
        return float(np.sqrt((ratio[shells] ** 2).mean()))

    return distance


def sliced(samples, test):
    """Sliced W2 in units of the data's standard deviation."""
    return sliced_wasserstein(samples / test.std(), test / test.std(), n_projections=512, random_state=0)


def band_distance(samples, test):
    """Root mean square of the power spectra's ratio in decibels over 16 bands, under a Hann window."""
    powers = [np.abs(np.fft.rfft(x * np.hanning(LENGTH))[:, 1:]) ** 2 for x in (samples, test)]
    own, real = (power.mean(axis=0).reshape(16, -1).sum(axis=1) for power in powers)
    return float(np.sqrt(((10 * np.log10(own / real)) ** 2).mean()))


def envelope_distance(samples, test):
    """Root mean square of the ratio in decibels of the variances at 32 stretches of the signals."""
    own, real = (x.var(axis=0).reshape(32, -1).mean(axis=1) for x in (samples, test))
    return float(np.sqrt(((10 * np.log10(own / real)) ** 2).mean()))


def autocorrelation_distance(samples, test):
    """Sliced W2 between the autocorrelations of single signals, lags 1 to 64."""

    def autocorrelations(x):
        power = np.abs(np.fft.rfft(x, 2 * LENGTH)) ** 2
        lags = np.fft.irfft(power)[:, :65]
        return lags[:, 1:] / lags[:, :1]

    return sliced_wasserstein(autocorrelations(samples), autocorrelations(test), n_projections=512, random_state=0)


def judge_digits(samples, asked, train, labels, test):
    """Share that a classifier of the training images reads as asked, and areas under the curve of two judges."""
    flat = [np.asarray(images).reshape(len(images), -1) for images in (train, samples, test)]
    read = SVC(gamma=0.064).fit(flat[0], labels).predict(flat[1])
    both, label = np.concatenate(flat[1:]), np.repeat([0, 1], [len(samples), len(test)])
    forest = RandomForestClassifier(100, random_state=0)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    areas = [cross_val_score(judge, both, label, cv=3, scoring="roc_auc").mean() for judge in (forest, logistic)]
    return {"as asked": np.mean(read == asked), "AUC, forest": areas[0], "AUC, logistic": areas[1]}


FIELD_MEASURES = {
    "dB, k = 1-3": spectral_distance(slice(0, 3)),
    "dB, k = 6-8": spectral_distance(slice(5, 8)),
    "sliced W2": sliced,
}
SIGNAL_MEASURES = {
    "dB, spectrum": band_distance,
    "dB, envelope": envelope_distance,
    "autocorrelation": autocorrelation_distance,
    "sliced W2": sliced,
}


@dataclass(frozen=True)
class Data:
    """What to draw, how to judge samples of it, and by which network and settings of the estimator to learn it."""

    draw: Callable
    judge: Callable
    network: dict = field(default_factory=dict)
    settings: dict = field(default_factory=lambda: {"batch_size": 32})


def fields(draw):
    network, settings = {"attention_levels": 0, **PERIODIC}, {"batch_size": 64, "n_steps": 20}
    return Data(partial(without_labels, draw), partial(by_channel, FIELD_MEASURES), network, settings)


def signals(draw, **network):
    return Data(partial(without_labels, draw), partial(by_channel, SIGNAL_MEASURES), network)


DATA = {
    "power-law": fields(power_law),
    "fronts": fields(fronts),
    "detail": fields(detail),
    "ringing": signals(ringing, positions=False),
    "impacts": signals(impacts),
    "digits": Data(digits, judge_digits),
}


if __name__ == "__main__":
    main()
