"""What is expected of targets: a linear map and boosted trees, as arrays that files can hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Index


@storable
@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """A sum of regression trees of one depth (Friedman, 2001), each a complete binary tree.

    Parameters
    ----------
    feature : ndarray of int, shape (n_trees, 2**depth - 1)
        Which element each node looks at; the children of node i are 2 i + 1 and 2 i + 2.
    threshold : ndarray of shape (n_trees, 2**depth - 1)
        Up to it a row goes to the first child. Infinite where a branch has ended, whose last leaf then counts.
    value : ndarray of shape (n_trees, 2**depth, q)
        What the leaves add.
    """

    feature: Index
    threshold: Array
    value: Array

    def check(self) -> None:
        """Raise a ValueError if the fields of stored trees do not fit each other."""
        require(self.feature.ndim == 2 and self.value.ndim == 3 and self.feature.shape == self.threshold.shape, "trees")
        n_trees, n_nodes = self.feature.shape
        require(self.value.shape[:2] == (n_trees, n_nodes + 1) and n_nodes & (n_nodes + 1) == 0, "trees")
        require((self.feature >= 0).all() and not np.isnan(self.threshold).any(), "trees")
        require(np.isfinite(self.value).all(), "trees")

    @classmethod
    def of(cls, trees: list[DecisionTreeRegressor], depth: int, rate: Array) -> BoostedTrees:
        """Take over trees of scikit-learn.

        Parameters
        ----------
        trees : list of DecisionTreeRegressor
            Fitted, each of them at most `depth` deep.
        depth : int
            Of the complete trees.
        rate : ndarray of shape (q,)
            What their values are multiplied by.

        Returns
        -------
        BoostedTrees
            Which predicts what they do.
        """
        n_nodes = 2**depth - 1
        feature, threshold = np.zeros((len(trees), n_nodes), dtype=np.intp), np.full((len(trees), n_nodes), np.inf)
        value = np.empty((len(trees), n_nodes + 1, len(rate)))
        for k, tree in enumerate(found.tree_ for found in trees):
            node = np.zeros(1, dtype=np.intp)
            for level in range(depth):
                inner, here = tree.children_left[node] >= 0, slice(2**level - 1, 2 ** (level + 1) - 1)
                feature[k, here] = np.where(inner, tree.feature[node], 0)
                threshold[k, here] = np.where(inner, tree.threshold[node], np.inf)
                children = np.stack([tree.children_left[node], tree.children_right[node]], axis=1)
                node = np.where(inner[:, None], children, node[:, None]).ravel()
            value[k] = rate * tree.value[node, :, 0]
        return cls(feature, threshold, value)

    def predict(self, X: Array) -> Array:
        """Sum what the leaves of each row add.

        Parameters
        ----------
        X : ndarray of shape (n, m)
            Rows, which hold float32 values in any dtype.

        Returns
        -------
        ndarray of shape (n, q)
            The sums.
        """
        total, rows, n_nodes = np.zeros((len(X), self.value.shape[2])), np.arange(len(X)), self.feature.shape[1]
        for feature, threshold, value in zip(self.feature, self.threshold, self.value, strict=True):
            node = np.zeros(len(X), dtype=np.intp)
            while node.size and node[0] < n_nodes:
                node = 2 * node + 1 + (X[rows, feature[node]] > threshold[node])
            total += value[node - n_nodes]
        return total


@storable
@dataclass(frozen=True, eq=False)
class Expected:
    """Where targets are expected: a linear map of the context, and trees of what it leaves.

    Parameters
    ----------
    weights, intercept : ndarray of shape (m, q) and (q,)
        The linear map.
    trees : BoostedTrees or None
        None where they would not help.
    mean, spread : ndarray of shape (q,)
        Of the targets.
    familiar : float
        A root mean square error, in units of `spread`, between those on rows that were trained on and on others.
    """

    weights: Array
    intercept: Array
    trees: BoostedTrees | None
    mean: Array
    spread: Array
    familiar: float

    def check(self) -> None:
        """Raise a ValueError if the fields do not fit each other."""
        require(self.weights.ndim == 2 and self.weights.shape[1:] == self.intercept.shape, "expected")
        require(self.mean.shape == self.spread.shape == self.intercept.shape and (self.spread > 0).all(), "expected")
        require(all(np.isfinite(part).all() for part in (self.weights, self.intercept, self.mean)), "expected")
        trees = self.trees
        require(trees is None or trees.value.shape[2] == len(self.intercept), "trees")
        require(trees is None or trees.feature.max(initial=0) < len(self.weights), "trees")

    def predict(self, contexts: Array) -> Array:
        """Predict.

        Parameters
        ----------
        contexts : ndarray of shape (n, m)
            Contexts without what is expected.

        Returns
        -------
        ndarray of shape (n, q)
            Targets, as a fit has them.
        """
        linear = contexts @ self.weights + self.intercept
        return linear if self.trees is None else linear + self.trees.predict(contexts)
