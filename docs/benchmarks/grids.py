"""Pictures: conditional samples of scikit-learn's digits and of MNIST, judged by classifiers, with the defaults.

    python docs/benchmarks/grids.py digits
    python docs/benchmarks/grids.py mnist FOLDER     # IDX files of 10,000 or more images; 8,000 are trained on

Run with OMP_NUM_THREADS=1 (digits) or 2 (mnist). A trained model is kept in the folder that MODELS names, if it is set.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

import flowmatch
from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import copy_check, precision_recall_density_coverage


def flat(images):
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1)


def fitted(name, X, y):
    """A generator with the defaults, fitted or read from the folder of models."""
    path = Path(os.environ["MODELS"]) / f"{name}.safetensors" if os.environ.get("MODELS") else None
    if path is not None and path.exists():
        return flowmatch.load(path)
    started = time.process_time(), time.perf_counter()
    generator = FlowMatchingGenerator(random_state=0).fit(X, y)
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    print(
        f"{name}: {generator.n_iter_} steps, {generator.n_parameters_} parameters, {cpu:.0f} CPU s, {wall:.0f} s on "
        f"{torch.get_num_threads()} thread(s)",
        flush=True,
    )
    if path is not None:
        generator.save(path)
    return generator


def two_sample_auc(samples, real, seed):
    """Cross-validated areas under the curve of a random forest and of logistic regression."""
    X = np.concatenate([flat(samples), flat(real)])
    label = np.r_[np.zeros(len(samples)), np.ones(len(real))]
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    judges = (
        RandomForestClassifier(100, random_state=seed),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    )
    return [cross_val_score(judge, X, label, cv=folds, scoring="roc_auc").mean() for judge in judges]


def digits(seed=0):
    """Scikit-learn's digits, two thirds to train on; every figure against the rows held out."""
    data = load_digits()
    images = data.images.astype(np.uint8)[:, None]
    X, held_out, y, y_held_out = train_test_split(
        images, data.target, test_size=1 / 3, stratify=data.target, random_state=seed
    )
    judge = SVC(gamma=0.001).fit(flat(X), y)
    print(f"judge on the images held out: {judge.score(flat(held_out), y_held_out):.4f}")
    generator = fitted(f"digits{seed}", X, y)
    labels = np.repeat(np.arange(10), 200)
    for scale in (1.0, 1.5, 2.0, 3.0):
        drawn = generator.sample(2000, y=labels, guidance_scale=scale, random_state=1)
        print(f"guidance {scale:g}: classified as asked {judge.score(flat(drawn), labels):.4f}", flush=True)
    rows = []
    for draw in range(3):
        drawn = generator.sample(len(held_out), y=y_held_out, random_state=10 + draw)
        forest, logistic = two_sample_auc(drawn, held_out, draw)
        fidelity = precision_recall_density_coverage(flat(held_out), flat(drawn))
        copies = copy_check(flat(X), flat(drawn), flat(held_out))
        rows.append([forest, logistic, fidelity.precision, fidelity.coverage, copies.share - copies.holdout_share])
    print("forest, logistic, precision, coverage, copying gap:", np.round(np.mean(rows, axis=0), 4), flush=True)
    for n_steps in (1, 2, 4, 8, 32):
        drawn = generator.sample(len(held_out), y=y_held_out, n_steps=n_steps, solver="euler", random_state=10)
        asked = judge.score(flat(drawn), y_held_out)
        print(f"Euler {n_steps}: as asked {asked:.4f}, areas {np.round(two_sample_auc(drawn, held_out, 0), 3)}")


class Judge(nn.Module):
    """A small convolutional classifier; its last hidden layer gives the features of the Frechet distance."""

    def __init__(self):
        super().__init__()
        layers = []
        for c_in, c_out in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, images):
        return self.head(self.body(images))

    @torch.no_grad()
    def read(self, images):
        """Features (n, 64) and labels (n,) of uint8 images."""
        self.eval()
        features = torch.cat([self.body(part) for part in as_input(images).split(500)])
        return features.double().numpy(), self.head(features).argmax(1).numpy()


def as_input(images):
    return torch.as_tensor(np.asarray(images, dtype=np.float32) / 255)


def train_judge(X, y, epochs=14, batch=100):
    torch.manual_seed(0)
    judge, images, labels = Judge(), as_input(X), torch.as_tensor(y)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (len(X) // batch))
    for _ in range(epochs):
        judge.train()
        for rows in torch.randperm(len(X))[: len(X) // batch * batch].split(batch):
            angle, scale = 0.35 * (torch.rand(batch) - 0.5), 1 + 0.2 * (torch.rand(batch) - 0.5)
            shift = 0.2 * (torch.rand(batch, 2) - 0.5)
            cos, sin = scale * angle.cos(), scale * angle.sin()
            turn = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
            grid = F.affine_grid(turn, (batch, 1, 28, 28), align_corners=False)
            loss = F.cross_entropy(judge(F.grid_sample(images[rows], grid, align_corners=False)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge


def frechet(a, b):
    """Frechet distance of two Gaussians fitted to features (Heusel et al., 2017, eq. 6)."""
    covariances = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariances[1] @ root), 0, None)).sum()
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross)


def mnist(folder):
    """MNIST: 8,000 images to train on, 2,000 to measure against."""
    parts = [flowmatch.datasets.load_idx_folder(folder, part) for part in ("train", "test") if _has(folder, part)]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.random.RandomState(0).permutation(len(images))[:10_000]
    X, y, held_out, y_held_out = images[order[:8000]], labels[order[:8000]], images[order[8000:]], labels[order[8000:]]
    judge = train_judge(X, y)
    real, read = judge.read(held_out)
    training, _ = judge.read(X)
    rng = np.random.RandomState(1)
    floor = np.mean([frechet(training[rng.permutation(len(X))[: len(held_out)]], real) for _ in range(6)])
    print(
        f"judge on the images held out: {(read == y_held_out).mean():.4f}; floor of the distance {floor:.2f}",
        flush=True,
    )
    generator = fitted("mnist", X, y)
    for solver, n_steps in (("midpoint", 16), ("midpoint", 4), ("ab2", 7), ("euler", 8), ("midpoint", 10)):
        drawn = generator.sample(2000, y=y_held_out, solver=solver, n_steps=n_steps, random_state=1)
        features, read = judge.read(drawn)
        asked = (read == y_held_out).mean()
        print(f"{solver} {n_steps}: distance {frechet(features, real):.2f}, as asked {asked:.4f}", flush=True)
    for scale in (1.25, 1.5):  # 8 steps of 2 evaluations of both fields: 32
        drawn = generator.sample(2000, y=y_held_out, n_steps=8, guidance_scale=scale, random_state=1)
        features, read = judge.read(drawn)
        asked = (read == y_held_out).mean()
        print(f"guidance {scale:g}: distance {frechet(features, real):.2f}, as asked {asked:.4f}", flush=True)
    asked_for = np.repeat(np.arange(10), 200)
    for scale in (1.0, 1.5, 2.0):
        _, read = judge.read(generator.sample(2000, y=asked_for, guidance_scale=scale, random_state=2))
        print(f"guidance {scale:g}: classified as asked {(read == asked_for).mean():.4f}", flush=True)


def _has(folder, part):
    try:
        flowmatch.datasets.load_idx_folder(folder, part)
    except FileNotFoundError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1] == "digits":
        digits(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    else:
        mnist(sys.argv[2])
