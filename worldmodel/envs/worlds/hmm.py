"""Hidden Markov models with actions: sampling, and exact filtering by Bayes' rule."""

from __future__ import annotations

import numpy as np

_SAME = 12  # number of decimals to which equal beliefs agree


class HMM:
    """Hidden Markov model T[action, token, from, to] = P(token, to | from, action); all entropies in nats.

    Letters: A actions, X tokens, S hidden states.

    tensor: (A, X, S, S), sums to 1 over (token, to).
    initial: (S,) distribution of the hidden state before the first token; None takes the stationary one of the start
        action.
    rewards: (A, S) reward of an action in a hidden state; None: all rewards are 0.
    start: the action before the first token, when the agent has not acted yet.

    Raises ValueError for tensors that are not distributions.
    """

    def __init__(
        self,
        tensor: np.ndarray,
        initial: np.ndarray | None = None,
        rewards: np.ndarray | None = None,
        start: int = 0,
    ):
        self.tensor = np.asarray(tensor, dtype=np.float64)
        if self.tensor.ndim != 4 or self.tensor.shape[2] != self.tensor.shape[3]:
            raise ValueError(f"tensor of shape {self.tensor.shape}: allowed is (action, token, from, to)")
        self.num_actions, self.num_tokens, self.num_states, _ = self.tensor.shape
        if (self.tensor < 0).any() or not np.allclose(self.tensor.sum((1, 3)), 1.0):
            raise ValueError("tensor: allowed are non-negative numbers that sum to 1 over (token, to)")
        self.start = start
        self.initial = self.stationary(start) if initial is None else np.asarray(initial, dtype=np.float64)
        self.rewards = np.zeros((self.num_actions, self.num_states)) if rewards is None else np.asarray(rewards)
        self._emit = self.tensor.sum(-1)  # (A, X, S): P(token | from, action)
        # (A, S, X * S): cumulative over (token, to), for sampling by one uniform number
        joint = self.tensor.transpose(0, 2, 1, 3).reshape(self.num_actions, self.num_states, -1)
        self._cumulative = joint.cumsum(-1)

    def transition(self, action: int = 0) -> np.ndarray:
        """Return P(to | from) under an action: (S, S)."""
        return self.tensor[action].sum(0)

    def stationary(self, action: int = 0) -> np.ndarray:
        """Return the stationary distribution (S,) of the transitions of an action."""
        chain = self.transition(action)
        equations = np.vstack([chain.T - np.eye(self.num_states), np.ones(self.num_states)])
        found = np.linalg.lstsq(equations, np.append(np.zeros(self.num_states), 1.0), rcond=None)[0].clip(0.0)
        return found / found.sum()

    def sample(self, state: np.ndarray, act: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and next hidden states, (N,) each.

        Arguments: hidden states, actions and uniform numbers in [0, 1), (N,) each.
        """
        bounds = self._cumulative[act, state]
        drawn = (uniform[:, None] * bounds[:, -1:] >= bounds).sum(-1)
        return drawn // self.num_states, drawn % self.num_states

    def update(self, belief: np.ndarray, act: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Return the beliefs (N, S) after an action and a token, by Bayes' rule.

        Arguments: beliefs (N, S) about the hidden state, actions and observed tokens, (N,) each.
        """
        joint = np.einsum("ni,nij->nj", belief, self.tensor[act, token])
        return joint / joint.sum(-1, keepdims=True)

    def predict(self, belief: np.ndarray) -> np.ndarray:
        """Return the exact distribution of the next token for each action: beliefs (N, S) -> (N, A, X)."""
        return np.einsum("ns,axs->nax", belief, self._emit)

    def cross_entropy(self, length: int, most: int = 1_000_000) -> np.ndarray:
        """Return the least cross-entropy of any predictor of the token at each position: (length,).

        It is H(x_t | x_<t, a_<t), with every action equally likely. The computation is exact, over all histories; those
        with the same belief are merged. Raises ValueError if more than `most` different beliefs remain.
        """
        beliefs, weights, actions = self.initial[None], np.ones(1), np.array([self.start])
        found = []
        for t in range(length):
            chance = self.predict(beliefs)[:, actions] / len(actions)  # (W, A, X)
            found.append(float((weights[:, None] * entropy(chance * len(actions))).sum() / len(actions)))
            if t + 1 == length:
                break
            past, act, token = np.nonzero(chance > 0)
            if len(past) > most:
                raise ValueError(f"length={length}: {len(past)} beliefs at position {t + 1}, allowed are {most}")
            weights = weights[past] * chance[past, act, token]
            beliefs = self.update(beliefs[past], actions[act], token)
            beliefs, which = np.unique(beliefs.round(_SAME), axis=0, return_inverse=True)
            weights = np.bincount(which.ravel(), weights)
            actions = np.arange(self.num_actions)
        return np.array(found)

    def entropy_rate(self, length: int) -> float:
        """Return the cross-entropy at position `length` - 1, which decreases towards the entropy rate."""
        return float(self.cross_entropy(length)[-1])

    def excess_entropy(self, length: int) -> float:
        """Return the mutual information of past and future, the area of the cross-entropies above the entropy rate.

        Source: Crutchfield & Feldman 2003, arXiv cond-mat/0102181. The area is summed over `length` positions, with the
        last cross-entropy as the rate.
        """
        h = self.cross_entropy(length)
        return float((h - h[-1]).sum())


def entropy(chance: np.ndarray) -> np.ndarray:
    """Return the entropy in nats of distributions: (..., X) -> (...)."""
    return -(chance * np.log(np.where(chance > 0, chance, 1.0))).sum(-1)
