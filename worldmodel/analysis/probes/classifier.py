"""Probability models of probes: softmax regression and a perceptron, both of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

UNSEEN = 0.5  # pseudo-count of each class (Krichevsky & Trofimov 1981), so that a class without samples has a code


def fit_softmax(x: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Fit softmax regression of standardised features, with a Gaussian prior of precision `penalty` on the weights.

    x (N, D), labels (N,) int64. Returns a map from features (M, D) to log-probabilities (M, classes) in nats.
    """
    model = LogisticRegression(C=1 / penalty, max_iter=1000)
    return _log_probabilities(model, x, labels, classes)


def fit_perceptron(
    x: Tensor, y: Tensor, outputs: int, *, hidden: int = 128, steps: int = 500, batch: int = 512, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """Fit a perceptron with one hidden layer by Adam, about `steps` steps, on standardised features and values.

    y (N,) int64 are classes; the result maps features (M, D) to log-probabilities (M, outputs).
    y (N, outputs) float are values; the result maps features to values.
    """
    labelled, batch = not y.is_floating_point(), min(batch, len(x))
    options = {
        "hidden_layer_sizes": (hidden,),
        "alpha": 1e-3,
        "learning_rate_init": 3e-3,
        "batch_size": batch,
        "max_iter": -(-steps * batch // len(x)),
        "n_iter_no_change": steps,  # the number of steps is fixed
        "random_state": seed % 2**32,
    }
    if labelled:
        return _log_probabilities(MLPClassifier(**options), x, y, outputs)
    model = TransformedTargetRegressor(MLPRegressor(**options), transformer=StandardScaler(), check_inverse=False)
    model = _fit(make_pipeline(StandardScaler(), model), x, y)

    def predict(features: Tensor) -> Tensor:
        values = model.predict(_array(features)).reshape(len(features), outputs)
        return torch.from_numpy(values).to(features.device, features.dtype)

    return predict


def _log_probabilities(model: ClassifierMixin, x: Tensor, labels: Tensor, classes: int) -> Callable[[Tensor], Tensor]:
    """Fit a classifier and return its map from features to log-probabilities (M, classes) of all classes."""
    if len(labels.unique()) == 1:
        model = DummyClassifier(strategy="prior")  # the other models need two classes
    model = _fit(make_pipeline(StandardScaler(), model), x, labels)
    share = len(x) / (len(x) + UNSEEN * classes)

    def predict(features: Tensor) -> Tensor:
        found = np.zeros((len(features), classes))
        found[:, model.classes_] = model.predict_proba(_array(features))
        return torch.from_numpy(np.log(share * found + (1 - share) / classes)).to(features.device, torch.float32)

    return predict


def _fit(model: ClassifierMixin, x: Tensor, y: Tensor) -> ClassifierMixin:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a perceptron with a fixed number of steps
        return model.fit(_array(x), np.squeeze(y.cpu().numpy()))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()
