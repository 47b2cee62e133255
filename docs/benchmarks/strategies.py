"""What a training strategy changes: spectra and distances of generated random fields at a fixed budget of steps.

``OMP_NUM_THREADS=1 python strategies.py NAME... [--data fronts] [--seeds 0,1] [--steps 400]`` prints a markdown row
for each strategy; ``all`` stands for every strategy, ``floor`` for held-out data in place of samples.

Data are periodic random fields on a 16 x 16 grid, made here:

* ``power-law``: Gaussian, energy spectrum E(k) ~ k^-3, as of two-dimensional turbulence.
* ``fronts``: ``tanh(2 g)`` of a smooth Gaussian field g: plateaus between steep fronts, not Gaussian.
* ``detail``: two channels, the first a power-law field, the second a tenth of white noise times its gradient. Not
  standardised, so that the second channel hardly counts in the plain loss.
"""

import argparse
import time

import numpy as np

from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import sliced_wasserstein
from flowmatch.networks import UNet
from flowmatch.objectives import ChannelWeighted, MultiScale, Sobolev

SIZE, N_TRAIN, N_TEST = 16, 2048, 512
PERIODIC = {"boundary": "periodic"}

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
    names = list(STRATEGIES) if options.names == ["all"] else options.names
    n_channels = DATA[options.data](1, 0).shape[1]
    columns = [f"{m} {c + 1}" if n_channels > 1 else m for c in range(n_channels) for m in MEASURES]
    print(f"| {options.data} | {' | '.join(columns)} | CPU s |\n|{' --- |' * (len(columns) + 2)}", flush=True)
    for name in names:
        runs = [run(name, options, int(seed)) for seed in options.seeds.split(",")]
        means, spans = np.mean(runs, axis=0), np.ptp(runs, axis=0) / 2
        cells = [f"{mean:.3g} ± {span:.1g}" for mean, span in zip(means[:-1], spans[:-1], strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {means[-1]:.0f} |", flush=True)


def run(name, options, seed):
    """The measures of one fit, channel by channel, and its CPU seconds."""
    train, test = DATA[options.data](N_TRAIN, seed), DATA[options.data](N_TEST, 1000 + seed)
    start = time.process_time()
    if name == "floor":
        samples = DATA[options.data](N_TEST, 2000 + seed)
    else:
        settings = {
            "network": UNet(width=options.width, attention_levels=0, **PERIODIC),
            "preprocessing": "none",
            "time_sampler": "stratified",
            "max_iter": options.steps,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "n_steps": 20,
        }
        model = FlowMatchingGenerator(**{**settings, **STRATEGIES[name]}, random_state=seed, device="cpu").fit(train)
        samples = model.sample(N_TEST, random_state=seed)
    seconds = time.process_time() - start
    pairs = [(samples[:, c], test[:, c]) for c in range(test.shape[1])]
    return [measure(*pair) for pair in pairs for measure in MEASURES.values()] + [seconds]


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


DATA = {"power-law": power_law, "fronts": fronts, "detail": detail}


# -- measures -----------------------------------------------------------------------------------------------------


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


MEASURES = {
    "dB, k = 1-3": spectral_distance(slice(0, 3)),
    "dB, k = 6-8": spectral_distance(slice(5, 8)),
    "sliced W2": sliced,
}


if __name__ == "__main__":
    main()
