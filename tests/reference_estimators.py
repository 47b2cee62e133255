"""How the estimators of the recorded references are built, saved and loaded: the one place that knows their names."""

from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB

import flowmatch
from flowmatch.networks import MLP, UNet

WITHOUT_TEACHER = ("student_without_teacher",)
SMALL = {"max_iter": 15, "batch_size": 32, "learning_rate": 0.02, "random_state": 0, "device": "cpu"}
TINY_MLP, TINY_UNET = MLP(width=8, depth=1), UNet(width=4, multipliers=(1, 2), attention_levels=0, context_width=8)


def generator(network=TINY_MLP, **parameters):
    return flowmatch.FlowMatchingGenerator(network, **{**SMALL, "n_steps": 3, **parameters})


def forecaster(network=TINY_MLP, **parameters):
    return flowmatch.ConditionalForecaster(network, **{**SMALL, "n_steps": 2, "n_samples": 6, **parameters})


def detector(network=TINY_MLP, **parameters):
    return flowmatch.FlowAnomalyDetector(network, **{**SMALL, "n_steps": 3, "n_folds": 1, **parameters})


def student(teacher, method="progressive", **parameters):
    if method in ("progressive", "reflow"):
        parameters = {"n_pairs": 48, "teacher_steps": 2, **parameters}
    return flowmatch.DistilledFlowMap(teacher, method, **{"max_iter": 10, "random_state": 0, **parameters})


def over_sampler(**parameters):
    return flowmatch.FlowMatchingOverSampler(generator(random_state=None), random_state=0, **parameters)


def augmented_classifier(**parameters):
    return flowmatch.AugmentedClassifier(GaussianNB(), generator(random_state=None), random_state=0, **parameters)


def augmented_regressor(**parameters):
    return flowmatch.AugmentedRegressor(LinearRegression(), generator(random_state=None), random_state=0, **parameters)


def load(path, model=None):
    """What a file holds; a student that was saved without its teacher is given that of the fitted model."""
    if path.stem in WITHOUT_TEACHER:
        return flowmatch.load(path, device="cpu", teacher=flowmatch.load(path.with_stem("labels"), device="cpu"))
    return flowmatch.load(path, device="cpu")


def save(model, path):
    model.save(path, **({"teacher": False} if path.stem in WITHOUT_TEACHER else {}))
