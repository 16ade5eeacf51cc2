"""Hidden Markov models with actions: sampled by a world, filtered exactly by Bayes' rule."""

from __future__ import annotations

import numpy as np

_SAME = 12  # beliefs that agree to so many decimals are one


class HMM:
    """T[action, token, from, to] = P(token, to | from, action); all entropies in nats.

    Letters: A actions, X tokens, S hidden states.

    tensor: (A, X, S, S), sums to 1 over (token, to).
    initial: (S,) distribution of the hidden state before the first token; None takes the stationary one of the
        start action.
    rewards: (A, S) paid for an action in a hidden state; None pays nothing.
    start: the action that brings the first token, before anyone has acted.

    Raises ValueError for tensors that are no distributions.
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
        """(S, S): P(to | from) under an action."""
        return self.tensor[action].sum(0)

    def stationary(self, action: int = 0) -> np.ndarray:
        """(S,) the distribution that the transitions of an action leave as it is."""
        chain = self.transition(action)
        equations = np.vstack([chain.T - np.eye(self.num_states), np.ones(self.num_states)])
        found = np.linalg.lstsq(equations, np.append(np.zeros(self.num_states), 1.0), rcond=None)[0].clip(0.0)
        return found / found.sum()

    def sample(self, state: np.ndarray, act: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hidden states, actions and uniform numbers in [0, 1), (N,) each -> tokens and next hidden states, (N,)."""
        bounds = self._cumulative[act, state]
        drawn = (uniform[:, None] * bounds[:, -1:] >= bounds).sum(-1)
        return drawn // self.num_states, drawn % self.num_states

    def update(self, belief: np.ndarray, act: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Bayes' rule: beliefs (N, S) about the hidden state, an action and the token that came, (N,) each -> the
        beliefs (N, S) after it."""
        joint = np.einsum("ni,nij->nj", belief, self.tensor[act, token])
        return joint / joint.sum(-1, keepdims=True)

    def predict(self, belief: np.ndarray) -> np.ndarray:
        """Beliefs (N, S) -> (N, A, X): the exact distribution of the next token, for each action."""
        return np.einsum("ns,axs->nax", belief, self._emit)

    def cross_entropy(self, length: int, most: int = 1_000_000) -> np.ndarray:
        """(length,) the least cross-entropy that any predictor of the token at a position can have, which is
        H(x_t | x_<t, a_<t), with every action equally likely.

        Exact: over all histories, of which those with the same belief are one. Raises ValueError where more than
        `most` different beliefs remain.
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
        """The cross-entropy at position `length` - 1, which falls towards the entropy rate."""
        return float(self.cross_entropy(length)[-1])

    def excess_entropy(self, length: int) -> float:
        """How much the past tells of the future: the area of the cross-entropies above the entropy rate (Crutchfield
        & Feldman 2003, arXiv cond-mat/0102181), summed over `length` positions, with the last one as the rate."""
        h = self.cross_entropy(length)
        return float((h - h[-1]).sum())


def entropy(chance: np.ndarray) -> np.ndarray:
    """(..., X) -> (...): nats of a distribution."""
    return -(chance * np.log(np.where(chance > 0, chance, 1.0))).sum(-1)
