"""Recorded learning runs, for the claims about learning: a table of experiments, a JSON file each, every seed listed.

    python benchmarks/claims.py                       # what is not there yet, about two hours on one core
    python benchmarks/claims.py shaping stability     # these
    python benchmarks/claims.py --list

The files are data of the package: `policygrad.lab.claims.recorded` reads them. A file is written after every arm, and arms
that are there with the same settings are not run again. Nothing was tuned for an outcome; step sizes that matter are a range,
reported whole. Arms differ only in what is compared: `shared` has the rest, and `config` each arm's whole configuration. Seeds
are ten from 0, five in sensitivity maps, twenty where runs are short; all are listed, none dropped. A curve's point is the
mean return of the (sampled) training episodes that ended in one of its equal intervals of steps, or null. `sampled` and
`greedy` are 20 episodes of the final policy on fixed seeds, without any bonus.

`off-policy` takes twenty minutes, all experiments on exact MDPs (claims_tabular.py), whose curves are J itself, ten.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from claims_tabular import TABULAR, Tabular

import policygrad
from policygrad.algorithms.recipe import current_keywords
from policygrad.data import Row
from policygrad.envs.shaping import PotentialShaping, ShapedReward
from policygrad.lab.exact.tabular import objective
from policygrad.lab.exact.worlds import make_mdp
from policygrad.training.agent import Agent

OUT = Path(__file__).parent.parent / "src/policygrad/lab/claims/recorded"
DIGITS = 4  # significant, in the files
EPISODES = 20  # of an evaluation

Measured = dict[str, Any]  # what a run leaves: a list of `points` numbers, or a number, for each name
Arms = dict[str, tuple[str, dict[str, Any]]]  # name → recipe, keywords besides the shared ones


@dataclass(frozen=True)
class Experiment:
    """Arms that differ in what is compared and share the rest; `points` equal intervals of the training steps.

    task: an id, whose presets stay out, or a callable in TASKS; an arm's keyword `task` overrides it. preset: the tuned
    settings of the id instead of the recipe's defaults. rows: columns of the metrics to keep. evaluate: play the final policy,
    sampled and greedy, in this environment. timed: keep the processor's seconds, too. worlds: the tasks are MDPs of the lab
    (make_mdp), played as environments, and `exact` is J of the final greedy policy.
    """

    about: str
    task: str
    steps: int
    arms: Arms
    shared: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = tuple(range(10))
    points: int = 40
    rows: tuple[str, ...] = ()
    preset: bool = False
    evaluate: str | None = None
    timed: bool = False
    worlds: bool = False

    def describe(self) -> dict[str, Any]:
        """What the file says besides the results."""
        return {
            "about": " ".join(self.about.split()),
            "task": self.task,
            "curve": "mean return of the training episodes that ended in each interval of steps",
            "steps": self.steps,
            "points": self.points,
            "seeds": list(self.seeds),
            "shared": self.shared,
        }

    def given(self, arm: str) -> tuple[str, dict[str, Any]]:
        """The algorithm and what the arm sets."""
        return self.arms[arm]

    def run(self, arm: str, seed: int) -> tuple[Measured, dict[str, Any]]:
        """One seed of an arm: what was measured, and the whole configuration."""
        algo, given = self.arms[arm]
        keywords: dict[str, Any] = {"task": self.task} | self.shared | given
        if keywords.get("baseline", "value") != "value":  # there is no critic, whose rate the arms share
            keywords.pop("critic_lr", None)
        task = keywords.pop("task")
        env = task if self.preset else TASKS.get(task, lambda: gym.make(task))
        if self.worlds:
            env = partial(WorldEnv, task)
        agent = Agent(algo, env, seed=seed, preset=None if self.preset else {}, backend="gymnasium", **keywords)
        curve = Curve(self.steps, self.points, self.rows, self.timed)
        agent.collector.observers.append(lambda record: curve.finished.extend(record.finished))
        agent.learn(self.steps, curve, self.steps // self.points)
        measured = curve.read()
        if self.evaluate is not None:
            for name, greedy in (("sampled", False), ("greedy", True)):
                measured[name] = agent.evaluate(EPISODES, greedy, env=self.evaluate).mean
        if self.worlds:
            measured["exact"] = WorldEnv(task).exact(lambda obs: int(agent.predict(obs)[0]))
        agent.envs.close()
        return measured, {name: value for name, value in agent.config.items() if name != "steps"}


class Curve:
    """A callback that keeps, of every interval of steps, the mean return of the episodes that ended and rows of metrics."""

    def __init__(self, steps: int, points: int, rows: tuple[str, ...], timed: bool = False) -> None:
        self.steps, self.points, self.rows, self.timed = steps, points, rows, timed
        self.began, self.seconds = time.process_time(), [0.0] * points  # at the end of each interval
        self.finished: list[tuple[float, int]] = []
        self.seen: dict[str, list[list[float]]] = {name: [[] for _ in range(points)] for name in ("return", *rows)}

    def __call__(self, agent: Agent, row: Row | None) -> None:
        k = min((agent.collector.steps_done - 1) * self.points // self.steps, self.points - 1)
        self.seen["return"][k] += [ret for ret, _ in self.finished]
        self.finished.clear()
        self.seconds[k:] = [time.process_time() - self.began] * (self.points - k)
        for name in self.rows:
            if row is not None and row.get(name) is not None:
                self.seen[name][k].append(float(row[name]))  # pyright: ignore[reportArgumentType]

    def read(self) -> Measured:
        """Means; None where an interval has nothing."""
        found: Measured = {name: [float(np.mean(x)) if x else None for x in bins] for name, bins in self.seen.items()}
        return found | ({"seconds": self.seconds} if self.timed else {})


MCC, GAMMA = "MountainCarContinuous-v0", 0.99


def movement(scale: float, at_goal: float = 0.0) -> Callable[[], gym.Env]:
    """MountainCarContinuous with scale · |Δposition| added, and something at the goal."""

    def bonus(obs: np.ndarray, act: Any, next_obs: np.ndarray, terminated: bool) -> float:
        return scale * abs(float(next_obs[0] - obs[0])) + at_goal * terminated

    return lambda: ShapedReward(gym.make(MCC), bonus)


def kinetic_energy(obs: np.ndarray) -> float:
    """50 at full speed; observation 1 is the velocity, 0.07 at most."""
    return 50.0 * (float(obs[1]) / 0.07) ** 2


def scaled(factor: float) -> Callable[[], gym.Env]:
    """CartPole with its rewards multiplied."""
    return lambda: gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda r: factor * float(r))


TASKS: dict[str, Callable[[], gym.Env]] = {
    "movement 0.1": movement(0.1, at_goal=100.0),
    "movement 100": movement(100.0),
    "potential": lambda: PotentialShaping(gym.make(MCC), kinetic_energy, GAMMA),
    "CartPole-v1 x 100": scaled(100.0),
}

HORIZONS = {"aliased": None, "rock-paper-scissors": None, "corridor": 100}  # of WorldEnv


class WorldEnv(gym.Env):
    """An MDP of the lab as an environment, which shows the group of its state, one-hot: states of a group look alike."""

    def __init__(self, world: str) -> None:
        self.mdp = make_mdp(world, horizon=HORIZONS[world])
        self.groups = list(range(self.mdp.states)) if self.mdp.groups is None else list(self.mdp.groups)
        self.observation_space = gym.spaces.Box(0.0, 1.0, (max(self.groups) + 1,), np.float32)
        self.action_space = gym.spaces.Discrete(self.mdp.actions)
        self.state = self.time = 0

    def shown(self, group: int) -> np.ndarray:
        """The observation of a group."""
        return np.eye(max(self.groups) + 1, dtype=np.float32)[group]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.time = int(self.np_random.choice(self.mdp.states, p=self.mdp.start.numpy())), 0
        return self.shown(self.groups[self.state]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        s, a = self.state, int(action)
        self.state = int(self.np_random.choice(self.mdp.states, p=self.mdp.transition[s, a].numpy()))
        self.time += 1
        over = self.state in self.mdp.terminal or self.time == self.mdp.horizon  # its end belongs to the task
        return self.shown(self.groups[self.state]), float(self.mdp.outcome[s, a, self.state]), over, False, {}

    def exact(self, act: Callable[[np.ndarray], int]) -> float:
        """J of the policy that takes act(observation), computed."""
        chosen = torch.tensor([act(self.shown(group)) for group in self.groups])
        return float(objective(self.mdp, torch.nn.functional.one_hot(chosen, self.mdp.actions).double()))


RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
BOUNDS = (0.01, 0.03, 0.1)
BATCH = {"num_envs": 8, "num_steps": 256}
EPOCHS = BATCH | {"epochs": 10, "minibatches": 8}
FIRST_ORDER: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce, no baseline": ("reinforce", {"baseline": "none"}),
    "reinforce": ("reinforce", {}),
    "a2c": ("a2c", {"num_steps": 16, "lam": 0.95}),
    "ppo, no clip": ("ppo", EPOCHS | {"clip": 10.0}),
    "ppo": ("ppo", EPOCHS),
}

EXPERIMENTS: dict[str, Experiment] = {
    "stability": Experiment(
        """CartPole-v1, first-order algorithms at five learning rates, each the same for policy and critic, and
        TRPO at three bounds of the KL. γ 0.99, 64 × 64 tanh networks, Adam, gradients clipped to norm 0.5
        (REINFORCE too), no entropy bonus, constant rates; the rest are the recipes' defaults: 16 episodes an update
        (reinforce), 8 × 16 steps (a2c), 8 × 256 steps (the others), 10 epochs of 8 minibatches and clip 0.2
        (ppo). "ppo, no clip" has clip 10: ratios up to 11 count in full.""",
        "CartPole-v1",
        100_000,
        {
            f"{name}, lr {lr:g}": (algo, keywords | {"lr": lr, "critic_lr": lr})
            for (name, (algo, keywords)), lr in product(FIRST_ORDER.items(), RATES)
        }
        | {f"trpo, max_kl {kl:g}": ("trpo", BATCH | {"max_kl": kl}) for kl in BOUNDS},
        shared={"gamma": 0.99, "max_grad_norm": 0.5},
        rows=("kl",),
    ),
    "estimators-cartpole": Experiment(
        """CartPole-v1, REINFORCE with one thing changed at a time: 16 whole episodes an update, one step of Adam,
        learning rate 0.01 for policy and critic, γ 0.99, 64 × 64 tanh networks, no clipping of gradients.""",
        "CartPole-v1",
        100_000,
        {
            "total return": ("reinforce", {"returns": "total", "baseline": "none"}),
            "total return, leave-one-out": ("reinforce", {"returns": "total", "baseline": "leave-one-out"}),
            "to-go": ("reinforce", {"baseline": "none"}),
            "to-go, constant 20": ("reinforce", {"baseline": "constant", "baseline_value": 20.0}),
            "to-go, running mean": ("reinforce", {"baseline": "running-mean"}),
            "to-go, leave-one-out": ("reinforce", {"baseline": "leave-one-out"}),
            "to-go, time average": ("reinforce", {"baseline": "time-average"}),
            "to-go, linear": ("reinforce", {"baseline": "linear"}),
            "to-go, V": ("reinforce", {"baseline": "value"}),
            "to-go, V, state discount": ("reinforce", {"baseline": "value", "state_discount": True}),
        },
        shared={"gamma": 0.99, "lr": 0.01, "critic_lr": 0.01},
    ),
    "normalisation": Experiment(
        """CartPole-v1, REINFORCE with reward-to-go and no baseline, the weights of ∇log π left as they are,
        standardised over the batch, or over each episode; rewards as they are and times 100; SGD with learning rate 0.1, or
        Adam with 0.01; mean over steps, γ 0.99, 64 × 64 tanh networks, no clipping. The returns recorded are those of
        the scaled rewards.""",
        "CartPole-v1",
        60_000,
        {
            f"{optimizer}, {way}, rewards x {scale:g}": (
                "reinforce",
                {"optimizer": optimizer, "lr": lr, "standardize": way}
                | ({} if scale == 1 else {"task": f"CartPole-v1 x {scale:g}"}),
            )
            for (optimizer, lr), way, scale in product(
                (("sgd", 0.1), ("adam", 0.01)), ("no", "batch", "episode"), (1, 100)
            )
        },
        shared={"gamma": 0.99, "baseline": "none", "reduction": "step"},
    ),
    "normalisation-rates": Experiment(
        """CartPole-v1 as in normalisation, with the rewards as they are, at other learning rates.""",
        "CartPole-v1",
        60_000,
        {
            f"{optimizer} {lr:g}, {way}": ("reinforce", {"optimizer": optimizer, "lr": lr, "standardize": way})
            for optimizer, rates in {"sgd": (0.01, 1.0, 10.0), "adam": (0.003, 0.03)}.items()
            for lr, way in product(rates, ("no", "batch", "episode"))
        },
        shared={"gamma": 0.99, "baseline": "none", "reduction": "step"},
    ),
    "sensitivity": Experiment(
        """CartPole-v1, A2C on a grid of learning rate, entropy coefficient and discount; λ 0.95, 8 × 16 steps an
        update, 64 × 64 tanh networks, gradients clipped to norm 0.5, the critic's rate that of the policy.""",
        "CartPole-v1",
        60_000,
        {
            f"lr {lr:g}, entropy {ent:g}, γ {gamma:g}": ("a2c", {"lr": lr, "ent_coef": ent, "gamma": gamma})
            for lr, ent, gamma in product((3e-4, 3e-3, 3e-2), (0.0, 0.1), (0.9, 0.98, 0.999))
        },
        shared={"lam": 0.95, "num_steps": 16},
        seeds=tuple(range(5)),
        points=20,
    ),
    "entropy-lake": Experiment(
        """FrozenLake 4 × 4 and 8 × 8, slippery: the only reward is 1 at the goal, which the uniform policy of the start
        reaches in about one episode in 70, and in one of 500. A2C with a table of logits, learning rate 0.1 for policy
        and critic, γ 0.99, λ 0.95, 8 × 16 steps an update, constant entropy bonus.""",
        "FrozenLake-v1",
        100_000,
        {
            f"{task}, entropy {ent:g}": ("a2c", {"task": task, "ent_coef": ent})
            for task, ent in product(("FrozenLake-v1", "FrozenLake8x8-v1"), (0.0, 0.001, 0.01, 0.1))
        },
        shared={"hidden": (), "lr": 0.1, "gamma": 0.99, "lam": 0.95, "num_steps": 16},
        rows=("entropy",),
        seeds=tuple(range(20)),
    ),
    "entropy-car": Experiment(
        """MountainCarContinuous-v0, where only the goal pays and every action costs: PPO with a constant entropy bonus
        of three sizes, 8 × 256 steps an update, 10 epochs of 8 minibatches, learning rate 1e-3, γ 0.99, λ 0.95,
        observations normalised.""",
        MCC,
        100_000,
        {f"entropy {ent:g}": ("ppo", {"ent_coef": ent}) for ent in (0.0, 0.01, 0.1, 0.3)},
        shared=EPOCHS | {"lr": 1e-3, "gamma": GAMMA, "normalize_obs": True},
        rows=("entropy",),
        points=20,
        evaluate=MCC,
    ),
    "shaping": Experiment(
        """MountainCarContinuous-v0, PPO as in entropy-car, trained with no bonus; with 0.1 |Δposition| and 100 more at
        the goal, as a tutorial has it; with 100 |Δposition|; and with γΦ(s′) − Φ(s), Φ = 50 (velocity / 0.07)². Curves
        are of the rewards that were learned from; `sampled` and `greedy` are returns of the final policy in the
        environment as it is.""",
        MCC,
        100_000,
        {
            name: ("ppo", {"task": task})
            for name, task in {
                "no bonus": MCC,
                "movement 0.1": "movement 0.1",
                "movement 100": "movement 100",
                "potential": "potential",
            }.items()
        },
        shared=EPOCHS | {"lr": 1e-3, "gamma": GAMMA, "normalize_obs": True},
        points=20,
        evaluate=MCC,
    ),
    "continuous-pendulum": Experiment(
        """Pendulum-v1, one continuous torque in [−2, 2]: the tuned presets of three recipes for 100 000 steps, for which
        those of ppo and trpo were made; that of a2c is for three times as many.""",
        "Pendulum-v1",
        100_000,
        {algo: (algo, {}) for algo in ("ppo", "trpo", "a2c")},
        preset=True,
        evaluate="Pendulum-v1",
    ),
    "continuous-car": Experiment(
        """MountainCarContinuous-v0: the tuned presets of REINFORCE and PPO, whose noise is correlated from step to step,
        and the same with independent noise.""",
        MCC,
        100_000,
        {
            f"{algo}, {noise} noise": (algo, keywords)
            for algo in ("reinforce", "ppo")
            for noise, keywords in (("independent", {"noise_autocorrelation": 0.0}), ("correlated", {}))
        },
        preset=True,
        points=20,
        evaluate=MCC,
    ),
    "practical-acrobot": Experiment(
        """Acrobot-v1, −1 a step until the tip is high enough, 500 steps at most: vanilla REINFORCE (16 episodes an
        update, with and without a learned V), A2C (8 × 16 steps) and PPO (8 × 256 steps, 10 epochs of 8 minibatches) at
        one learning rate, 3e-3, for policy and critic; γ 0.99, 64 × 64 tanh networks, gradients clipped to norm
        0.5.""",
        "Acrobot-v1",
        100_000,
        {name: FIRST_ORDER[name] for name in ("reinforce, no baseline", "reinforce", "a2c", "ppo")},
        shared={"gamma": 0.99, "lr": 3e-3, "critic_lr": 3e-3, "max_grad_norm": 0.5},
    ),
    "off-policy": Experiment(
        """CartPole-v1, steps and seconds of the processor until the mean return of an interval of 1,000 steps is 195: DQN
        with its recipe's defaults at three learning rates, the same without replay, which learns from the steps just played
        alone; and REINFORCE with V, A2C, PPO and TRPO as in stability, at three step sizes each. γ 0.99.""",
        "CartPole-v1",
        30_000,
        {
            f"{name}, lr {lr:g}": ("dqn", {"lr": lr, "replay": replay})
            for (name, replay), lr in product({"dqn": True, "dqn, no replay": False}.items(), (3e-4, 1e-3, 3e-3))
        }
        | {
            f"{name}, lr {lr:g}": (FIRST_ORDER[name][0], FIRST_ORDER[name][1] | {"lr": lr, "critic_lr": lr})
            for name, lr in product(("reinforce", "a2c", "ppo"), (1e-3, 3e-3, 1e-2))
        }
        | {f"trpo, max_kl {kl:g}": ("trpo", BATCH | {"max_kl": kl}) for kl in BOUNDS},
        shared={"gamma": 0.99},
        points=30,
        timed=True,
    ),
    "stochastic-values": Experiment(
        """The three tasks of stochastic, whose best policy is a stochastic one, played by DQN with its recipe's defaults;
        states that look alike share an observation. exact: J of the final greedy policy.""",
        "aliased",
        10_000,
        {world: ("dqn", {"task": world}) for world in HORIZONS},
        points=20,
        worlds=True,
    ),
}


def record(name: str, experiment: Experiment | Tabular, folder: Path) -> None:
    """Run the arms that are missing, and write the file after each."""
    path = folder / f"{name}.json"
    data = plain({"name": name, "command": f"python benchmarks/claims.py {name}"} | experiment.describe())
    before = json.loads(path.read_text()) if path.exists() else {"arms": {}}
    same = all(before.get(key) == value for key, value in data.items() if key != "about")
    there = before["arms"] if same else {}
    data["versions"] = before["versions"] if there else versions()
    arms: dict[str, Any] = {}
    for arm in experiment.arms:
        algo, given = plain(experiment.given(arm))
        arms[arm] = there.get(arm, {})
        if (arms[arm].get("algo"), current_keywords(algo, arms[arm].get("given", {}))) != (algo, given):
            start = time.perf_counter()
            runs = [experiment.run(arm, seed) for seed in experiment.seeds]
            measures = {key: [rounded(measured[key]) for measured, _ in runs] for key in runs[0][0]}
            arms[arm] = {"algo": algo, "given": given, "config": runs[0][1], "measures": measures}
            print(f"{name}: {arm}: {time.perf_counter() - start:.1f} s", flush=True)
            write(path, data | {"arms": arms})
    write(path, data | {"arms": arms})


def plain(x: Any) -> Any:
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(x))


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    packages = {name: version(name) for name in ("torch", "numpy", "gymnasium")}
    return {"policygrad": policygrad.__version__, "python": platform.python_version()} | packages


def rounded(x: Any) -> Any:
    """To DIGITS significant digits; lists element by element."""
    if isinstance(x, list):
        return [rounded(item) for item in x]
    return x if x is None else float(f"{x:.{DIGITS}g}")


def write(path: Path, data: dict[str, Any]) -> None:
    """As JSON, with a list of numbers on one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    flat = re.sub(
        r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(flat + "\n")


def main() -> None:
    """Run the experiments that were named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments [all]")
    parser.add_argument("--list", action="store_true", help="print the experiments and end")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the files [the package's]")
    args = parser.parse_args()
    experiments = EXPERIMENTS | TABULAR
    unknown = [name for name in args.names if name not in experiments]
    if unknown:
        parser.error(f"there is no experiment {unknown[0]!r}: there are {', '.join(experiments)}")
    for name in args.names or experiments:
        experiment = experiments[name]
        if args.list:
            size = experiment.describe()["steps"]
            print(f"{name}: {len(experiment.arms)} arms × {len(experiment.seeds)} seeds × {size:,} steps or updates")
        else:
            record(name, experiment, args.out)


if __name__ == "__main__":
    main()
