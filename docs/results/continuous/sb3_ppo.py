"""Train PPO of Stable-Baselines3 on one world, and append its figures to sb3_ppo.csv beside this script.

pip install stable-baselines3==2.9.2
python docs/results/continuous/sb3_ppo.py plain HalfCheetah-v5 1000000 20
python docs/results/continuous/sb3_ppo.py zoo Hopper-v5 1000000 20

plain: 16 environments x 128 steps, minibatches of 64, 10 passes, otherwise its defaults, with VecNormalize.
zoo: the tuned settings of RL Baselines3 Zoo (hyperparams/ppo.yml), whose published returns are one run each at 1 M
steps (HalfCheetah-v3 5,819, Hopper-v3 2,410, Walker2d-v3 3,479; benchmark.md).
`return` is the mean over the last 200 finished episodes of training, `return_greedy` over 20 episodes of the
deterministic policy.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

OUT = Path(__file__).with_suffix(".csv")
WIDE = dict(log_std_init=-2, ortho_init=False, activation_fn=torch.nn.ReLU, net_arch=dict(pi=[256, 256], vf=[256, 256]))
PLAIN = dict(n_steps=128, batch_size=64, n_epochs=10)
ZOO = {
    "HalfCheetah": dict(
        batch_size=64, n_steps=512, gamma=0.98, learning_rate=2.0633e-05, ent_coef=0.000401762, clip_range=0.1,
        n_epochs=20, gae_lambda=0.92, max_grad_norm=0.8, vf_coef=0.58096, policy_kwargs=WIDE,
    ),
    "Hopper": dict(
        batch_size=32, n_steps=512, gamma=0.999, learning_rate=9.80828e-05, ent_coef=0.00229519, clip_range=0.2,
        n_epochs=5, gae_lambda=0.99, max_grad_norm=0.7, vf_coef=0.835671, policy_kwargs=WIDE,
    ),
    "Walker2d": dict(
        batch_size=32, n_steps=512, gamma=0.99, learning_rate=5.05041e-05, ent_coef=0.000585045, clip_range=0.1,
        n_epochs=20, gae_lambda=0.95, max_grad_norm=1, vf_coef=0.871923, policy_kwargs=WIDE,
    ),
}  # fmt: skip


def train(kind: str, world: str, steps: int, seed: int) -> dict[str, object]:
    """Train one run and return its row."""
    torch.set_num_threads(1)
    settings = PLAIN if kind == "plain" else ZOO[world.split("-")[0]]
    env = VecNormalize(
        make_vec_env(world, n_envs=16 if kind == "plain" else 1, seed=seed), gamma=settings.get("gamma", 0.99)
    )
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", stats_window_size=200, **settings)
    start = time.perf_counter()
    model.learn(steps)
    wall = time.perf_counter() - start
    last = [episode["r"] for episode in model.ep_info_buffer]
    env.training, env.norm_reward = False, False
    greedy, _ = evaluate_policy(model, env, n_eval_episodes=20)
    return {
        "settings": kind, "env": world, "seed": seed, "env_steps": model.num_timesteps, "wall_s": round(wall, 1),
        "steps_per_s": round(model.num_timesteps / wall), "return": round(sum(last) / len(last), 1) if last else None,
        "return_greedy": round(float(greedy), 1),
    }  # fmt: skip


if __name__ == "__main__":
    row = train(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    new = not OUT.exists()
    with OUT.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)
