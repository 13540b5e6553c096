"""What the numbers in rows of metrics are: for `policygrad list metrics`, docs/metrics.md and TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass

NOTATION = (
    "θ are the policy's parameters, s = θ_new − θ_old, ĝ and F the batch's policy gradient and Fisher matrix before the step, "
    "and r = π_new / π_old for the actions taken."
)


@dataclass(frozen=True)
class Metric:
    """A number in metrics.jsonl.

    text: what it is, and whose it is, where not all recipes have it. healthy: which values are. tag: its name in TensorBoard,
    Stable-Baselines3's where that has it; one that ends with "/" goes on with the name, and one without "/" says what there is
    instead of a tag.
    """

    name: str
    text: str
    healthy: str = ""
    tag: str = "train/"

    @property
    def written(self) -> str:
        """The whole tag; empty where there is none."""
        return self.tag + self.name if self.tag.endswith("/") else self.tag if "/" in self.tag else ""


TRAINING = (
    Metric("steps", "environment steps used for learning, without resets", tag="the axis"),
    Metric("episodes", "finished episodes", tag="rollout/"),
    Metric("return_mean", "mean return of the last 100 finished training episodes", tag="rollout/ep_rew_mean"),
    Metric("length_mean", "their mean length", tag="rollout/ep_len_mean"),
    Metric("seconds", "seconds since `learn` began", tag="the wall clock"),
    Metric("steps_per_second", "steps / seconds, evaluations included", tag="time/fps"),
)
UPDATE = (
    Metric("kl", "exact mean KL(old ‖ new), nats", "PPO: 0.002 to 0.02", "train/approx_kl"),
    Metric(
        "entropy",
        "mean entropy of the new policy, nats; negated in TensorBoard",
        "falls slowly",
        "train/entropy_loss",
    ),
    Metric(
        "clip_fraction",
        "PPO: share of steps whose gradient the clip removes after the last epoch",
        "0.01 to 0.1; many epochs: to 0.3",
    ),
    Metric("gain", "rise of the surrogate, Σ weight · (ratio − 1) · adv", "positive"),
    Metric("predicted_gain", "its linear model, ĝᵀs", "near `gain`"),
    Metric("kl_quadratic", "the KL's quadratic model, ½ sᵀFs", "near `kl`"),
    Metric("kl_k1", "KL from the actions taken: mean of −log r", "may be negative"),
    Metric("kl_k2", "mean of ½ (log r)², biased", "near `kl`"),
    Metric("kl_k3", "mean of r − 1 − log r", "near `kl`"),
    Metric("step_norm", "‖s‖₂", "steady, or falling with `lr`"),
    Metric("policy_step", "√(2 `kl`), the step's length in policy space", "steady"),
    Metric("grad_norm", "‖ĝ‖₂ before update and clipping", "steady, within a factor of ten"),
    Metric("adv_std", "standard deviation of the batch's advantages", "1 if standardised; 0: nothing to learn from"),
    Metric("ratio_error", "mean |log r| before the update, when both policies are equal", "below 1e-5"),
    Metric(
        "clipped_actions", "`head = gaussian` in a Box: share of action components clipped to the bounds", "below 0.3"
    ),
    Metric("lr", "the policy's current learning rate", "as configured", "train/learning_rate"),
    Metric(
        "delay",
        "asynchronous workers: other workers' updates between a worker's copy and its push, mean",
        "workers − 1",
    ),
    Metric("epochs", "passes over the batch", "as configured; fewer if `target_kl` stopped"),
    Metric("beta", "PPO-KL: weight of the KL penalty", "moves around a level"),
    Metric("accepted", "TRPO: fraction of the natural step taken; 0: rejected", "1, sometimes less"),
    Metric("backtracks", "TRPO: how often the step was shortened", "0, sometimes more"),
    Metric(
        "cg_iterations", "NPG, TRPO: conjugate-gradient iterations; 0 with `solver = dense`", "at most as configured"
    ),
    Metric("cg_residual", "NPG, TRPO: ‖ĝ − (F + damping · I) x‖ / ‖ĝ‖ of the solution x", "below 0.1"),
    Metric(
        "cg_curvature",
        "NPG, TRPO: smallest pᵀ(F + damping · I)p / pᵀp of search directions p",
        "at least `damping`",
    ),
    Metric(
        "fisher_1",
        "with `--fisher-eigenvalues K`: largest eigenvalue of F; then `fisher_2`, …",
        "grows as the policy becomes deterministic",
    ),
    Metric(
        "ess",
        "off_policy_pg: effective sample size of the importance weights before the update, episodes",
        "many; training stops below `min_ess` · `episodes`",
    ),
    Metric(
        "weight_mean",
        "off_policy_pg: mean importance weight before clipping or normalising",
        "near 1; far below: actions that the data lack",
    ),
    Metric(
        "behavior_kl",
        "off_policy_pg: KL(policy that acted ‖ policy) per episode, estimated, nats",
        "rises from 0 to about 1",
    ),
)
GRADIENT = tuple(  # of --gradient-meter
    Metric(name, text, tag="gradient/")
    for name, text in {
        "signal": "‖E ĝ‖², unbiased, so at times negative",
        "noise": "tr Cov(ĝ) of the whole batch",
        "snr": "`signal` / `noise`",
        "snr_low": "lower end of its 95 % interval; 0: no significant signal; `null` below 8 trajectories",
        "snr_high": "upper end",
        "half_cosine": "cosine between the gradients of two halves",
        "noise_scale": "steps in a batch of SNR 1; `null` unless `snr` > 0",
        "noise_trajectories": "the same in trajectories",
        "batch_suggested": "`noise_scale` where `snr_low` > 0, else `null`",
        "variance_1": "variance share of the first quarter of the longest episode's steps",
        "variance_2": "of the second",
        "variance_3": "of the third",
        "variance_4": "of the fourth; they sum to 1",
        "variance_steps": "steps in all quarters",
        "meter_groups": "independent groups of trajectories, at most 16; with 1 there are no numbers",
        "meter_seconds": "seconds that measuring took",
    }.items()
)
CRITIC = (
    Metric(
        "explained_variance",
        "1 − Var(target − V) / Var(target), before the critic's fit",
        "towards 1; above 0.5 after a tenth of training",
    ),
    Metric("value_loss", "mean (target − V)², before the critic's fit, squared returns", "small beside Var(target)"),
)
OFF_POLICY = (
    Metric("q_mean", "mean q(s, a)", "reaches the size of discounted returns and stays"),
    Metric("td_error", "root mean square of target − q", "small beside the spread of returns; steady"),
    Metric(
        "critic_grad_norm",
        "DDPG, TD3, SAC: gradient norm of the critic's loss before clipping",
        "steady, within a factor of ten",
    ),
    Metric(
        "epsilon",
        "probability of a uniformly random action",
        "1 during `warmup`, then falls to the keyword `epsilon` (`dqn`, `pqn`) or is 0",
        "rollout/exploration_rate",
    ),
    Metric("alpha", "SAC: weight of the entropy", "falls, then moves around a level", "train/ent_coef"),
    Metric("replay_steps", "rows in the replay buffer", "up to `buffer_size`"),
)
EVALUATION = (
    Metric("eval_return_mean", "mean return of an evaluation during training", tag="eval/mean_reward"),
    Metric("eval_length_mean", "its mean episode length", tag="eval/mean_ep_length"),
    Metric("eval_steps", "when it was made", tag="the axis"),
)

TABLES = {  # the sections of docs/metrics.md
    "training": TRAINING,
    "update": UPDATE,
    "gradient": GRADIENT,
    "critic": CRITIC,
    "off-policy learning": OFF_POLICY,
    "evaluations": EVALUATION,
}
METRICS = {metric.name: metric for metrics in TABLES.values() for metric in metrics}


def tag_of(name: str) -> str:
    """The TensorBoard tag of a number, `train/NAME` for one of a learner from elsewhere; empty where it has none."""
    return METRICS.get(name, Metric(name, "")).written
