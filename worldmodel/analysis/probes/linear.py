"""Ridge and perceptron probes of features, held out by episode, with controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from worldmodel.analysis.probes.classifier import fit_perceptron

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["linear", "mlp"]


@dataclass
class Affine:
    """Affine map x @ weight + bias from (M, D) to (M, E)."""

    weight: Tensor  # (D, E)
    bias: Tensor  # (E,)

    def __call__(self, x: Tensor) -> Tensor:
        return x.to(self.weight.dtype) @ self.weight + self.bias


@dataclass
class Score:
    """Score of a probe on held-out episodes, and of the same probe with shuffled labels."""

    score: float  # R² (real values) or accuracy (labels)
    shuffled: float  # control: the score without any relation between features and labels
    baseline: float  # of a constant guess: 0 for R², the share of the commonest label


def ridge(x: Tensor, y: Tensor, penalty: float = 1e-4) -> Affine:
    """Ridge regression (Hoerl & Kennard 1970) on standardised features, in double precision.

    x (M, D), y (M, E). `penalty` is a share of the M rows: a weight w of a standardised feature costs penalty w². A
    constant feature has no weight.
    """
    scaler = StandardScaler()
    inputs = scaler.fit_transform(x.double().cpu().numpy())
    found = Ridge(alpha=penalty * len(x), solver="cholesky").fit(inputs, y.double().cpu().numpy())
    weight = found.coef_.reshape(y.shape[1], -1).T / scaler.scale_[:, None]  # a single column's coef_ is (D,)
    bias = found.intercept_.reshape(-1) - scaler.mean_ @ weight
    return Affine(torch.from_numpy(weight).to(x.device), torch.from_numpy(bias).to(x.device))


def r_squared(y: Tensor, guess: Tensor, mean: Tensor | None = None) -> float:
    """R² pooled over columns: 1 - sum of squared errors / sum of squares about `mean` (null: that of y).

    y and guess are (M, E). Pooling weighs columns by their variance, so that constant ones do not count.
    """
    y, guess = y.double(), guess.double()
    spread = (y - (y.mean(0) if mean is None else mean)).square().sum()
    return float(1 - (y - guess).square().sum() / spread.clamp_min(1e-30))


def held_out(groups: Tensor, share: float = 0.3, seed: int = 0) -> Tensor:
    """(M,) bool: the rows of a random `share` of the groups (episodes), at least one and not all.

    Rows of one episode resemble each other: a split by rows would test on rows like those of the fit.

    Raises:
        ValueError: for fewer than two groups.
    """
    names, index = groups.unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups: {len(names)} episode, a held-out split needs at least 2")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).to(groups.device)
    chosen = torch.zeros(len(names), dtype=torch.bool, device=groups.device)
    chosen[order[:count]] = True
    return chosen[index]


def probe(x: Tensor, y: Tensor, groups: Tensor, kind: Kind = "linear", *, share: float = 0.3, seed: int = 0) -> Score:
    """Predict y from features x (M, D), fitted on some episodes and scored on others; groups (M,) names episodes.

    y (M,) or (M, E) float: held-out R². y (M,) int64 or bool: held-out accuracy, by the largest of the regressions onto
    one-hot labels (linear) or by softmax (mlp). The control permutes the rows of y first: its score measures the
    capacity of the probe alone (compare Hewitt & Liang 2019).
    """
    test = held_out(groups, share, seed)
    labelled = not y.is_floating_point()
    y = y.long() if labelled else y.reshape(len(y), -1)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
    score, shuffled = (_score(x, labels, test, kind, seed) for labels in (y, y[order]))
    if not labelled:
        return Score(score, shuffled, 0.0)
    commonest = y[~test].mode().values
    return Score(score, shuffled, float((y[test] == commonest).float().mean()))


def _score(x: Tensor, y: Tensor, test: Tensor, kind: Kind, seed: int) -> float:
    labelled = not y.is_floating_point()
    if kind == "mlp":
        outputs = int(y.max()) + 1 if labelled else y.shape[1]
        guess = fit_perceptron(x[~test], y[~test], outputs, seed=seed)(x[test])
    elif kind == "linear":
        goals = torch.nn.functional.one_hot(y).double() if labelled else y
        guess = ridge(x[~test], goals[~test])(x[test])
    else:
        raise ValueError(f"kind={kind}: allowed are linear, mlp")
    if labelled:
        return float((guess.argmax(-1) == y[test]).float().mean())
    return r_squared(y[test], guess, y[~test].double().mean(0))


def probe_layers(
    layers: Mapping[str, Tensor],
    variables: Mapping[str, Tensor],
    groups: Tensor,
    *,
    control: Mapping[str, Tensor] | None = None,
    kind: Kind = "linear",
    seed: int = 0,
) -> list[dict[str, float | str]]:
    """Probe every variable from every layer: rows of `layer variable score shuffled baseline`.

    Where `control` gives the activations of a network with random weights, `random_network` is the score from its
    layer of the same name.
    """
    table = []
    for layer, x in layers.items():
        for name, y in variables.items():
            found = probe(x, y, groups, kind, seed=seed)
            row = {"layer": layer, "variable": name, **vars(found)}
            if control is not None:
                row["random_network"] = probe(control[layer], y, groups, kind, seed=seed).score
            table.append(row)
    return table


def layers_figure(table: list[dict[str, float | str]], value: str = "score") -> Figure:
    """Draw a heat map of `value`: layers from left to right, variables from top to bottom."""
    from matplotlib.figure import Figure

    layers, variables = (list(dict.fromkeys(row[key] for row in table)) for key in ("layer", "variable"))
    figure = Figure(figsize=(2 + 0.8 * len(layers), 1 + 0.5 * len(variables)), layout="constrained")
    axis = figure.subplots()
    cells = [[math.nan] * len(layers) for _ in variables]
    for row in table:
        i, j = variables.index(row["variable"]), layers.index(row["layer"])
        cells[i][j] = row[value]
        axis.text(j, i, f"{row[value]:.2f}", ha="center", va="center", color="w" if row[value] < 0.6 else "k")
    image = axis.imshow(cells, vmin=0, vmax=1, aspect="auto", cmap="viridis")
    axis.set_xticks(range(len(layers)), layers)
    axis.set_yticks(range(len(variables)), variables)
    figure.colorbar(image, label=value)
    return figure
