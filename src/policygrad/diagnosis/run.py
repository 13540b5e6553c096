"""The rules about runs: what a run's files say of why it does not learn, the cheapest first. Neither torch nor environments.

Most settings are wrong only where the return does not rise, so that those rules speak only then: `RunCase.stalls`.

`task_rules`, `settings_rules` and `update_rules` have the others. `RULES` says what each calls a symptom, and docs/doctor.md
has this as a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from policygrad.algorithms.config import resolve
from policygrad.algorithms.recipes import RECIPES
from policygrad.diagnosis import settings_rules, task_rules, update_rules
from policygrad.diagnosis.run_case import ERRORS, HENDERSON, JONES, MANY, REPORT, SCHULMAN, RunCase, read_case
from policygrad.diagnosis.symptoms import CannotTell, Diagnosis, Symptom, SymptomRule, examine, percent
from policygrad.reports import findings, value_findings
from policygrad.reports.columns import as_number, ends, lasting, num, steps_text
from policygrad.stored.directory import RunDirectory

SURE = 10_000  # steps without an end of an episode
REST, CLEAR = 0.5, 4.0  # of the rise, and standard errors, that a fall exceeds
SHORT = 0.3  # of the steps of the preset
FACTOR = 30.0  # between a learning rate and that of the preset
BATCH = 128  # steps per update
NO_GRADIENT = 1e-8  # its norm
STAYS, FROM = 0.98, 0.3  # of the first entropy, from this share of the run on
LOST, BEFORE = 0.05, 0.2  # of the first entropy, before this share of the run
SMALL_KL, SMALL_KL_ONE_STEP = 5e-4, 5e-6  # nats: with several epochs on a batch, and with one step
CLIPPED = 0.3  # share of the steps


def stopped(case: RunCase) -> Symptom | None:
    """The run was not stopped by an error."""
    reason = str(case.state.get("reason", ""))
    if case.state["status"] != "stopped" or "Error" not in reason:
        return None
    text = f"stopped at {case.state['steps']:,} steps: {reason.splitlines()[0]}"
    return Symptom(
        "stopped", text, float(case.state["steps"]), "where an error stops a run", case.look(), "", sure=True
    )


def no_episodes(case: RunCase) -> Symptom | None:
    """Episodes end."""
    steps = as_number(case.rows[-1].get("steps")) if case.rows else 0.0
    done = max((as_number(row.get("episodes")) for row in case.rows), default=math.nan)
    if len(case.returns) or done != 0.0:
        return None
    text = f"no episode ended in {steps_text(steps)} steps: there is no return to judge by"
    advice = "gymnasium.wrappers.TimeLimit(env, max_episode_steps=1000)"
    return Symptom("no episodes", text, 0.0, "at 0 episodes", advice, SCHULMAN, sure=steps >= SURE)


def equal_returns(case: RunCase) -> Symptom | None:
    """Returns differ: only differences are learned from."""
    if len(case.returns) < MANY:
        raise CannotTell(f"fewer than {MANY} episodes ended")
    if np.ptp(case.returns) > 0.0:
        return None
    text = f"all {len(case.returns):,} episodes have the return {num(float(case.returns[0]))}"
    return Symptom(
        "equal returns", text, 0.0, "at 0 between the largest and the smallest", case.look(), SCHULMAN, sure=True
    )


def not_improving(case: RunCase) -> Symptom | None:
    """The return rises."""
    rise, error = case.change()
    if rise > ERRORS * error:
        return None
    text = f"the return did not rise: from the first fifth of the episodes to the last it changed by {num(rise)} ± {num(error)}"
    limits = f"below {ERRORS:g} standard errors"
    return Symptom("not improving", text, rise / error if error else 0.0, limits, case.look(), HENDERSON)


def lost_again(case: RunCase) -> Symptom | None:
    """What was learned is not lost again."""
    if len(case.returns) < 5 * MANY:
        raise CannotTell(f"fewer than {5 * MANY} episodes ended")
    parts = np.array_split(case.returns, 10)
    mean = np.array([part.mean() for part in parts])
    error = np.array([part.std(ddof=1) / math.sqrt(len(part)) for part in parts])
    best = int(mean.argmax())
    fall, rise = float(mean[best] - mean[-1]), float(mean[best] - mean[0])
    fell, rose = (CLEAR * math.hypot(error[best], error[k]) for k in (-1, 0))
    if fall <= max(REST * rise, fell) or rise <= rose:
        return None
    text = f"the mean return of a tenth of the episodes rose to {num(mean[best])} and is {num(mean[-1])} at the end"
    return Symptom("lost again", text, fall / rise, f"above {REST:g} of the rise", case.lr(0.3), JONES)


def short_run(case: RunCase) -> Symptom | None:
    """The run is about as long as the preset's."""
    if case.preset is None:
        raise CannotTell(f"there is no tuned preset for {case.env}")
    if case.state["status"] == "running":
        raise CannotTell("the run has not ended")
    share = as_number(case.config.get("steps")) / as_number(case.preset.get("steps"))
    if not share < SHORT:
        return None
    steps = int(case.preset["steps"])
    text = f"{steps_text(case.config['steps'])} steps were asked for, and the tuned preset has {steps_text(steps)}"
    return Symptom(
        "short run", text, share, f"below {SHORT:g} of the preset's steps", case.train(f"--steps {steps}"), "the preset"
    )


def settings(case: RunCase) -> Symptom | None:
    """Learning rates are near those of the preset, or of the recipe's defaults."""
    if case.algo not in RECIPES:
        raise CannotTell("the recipe is not of the package")
    usual = case.preset or resolve(case.algo, "", {})[0]
    for name in ("lr", "critic_lr"):
        own, other = as_number(case.config.get(name)), as_number(usual.get(name))
        other = as_number(usual.get("lr")) if name == "critic_lr" and not math.isfinite(other) else other
        ratio = own / other if other > 0.0 else math.nan
        if ratio > FACTOR or ratio < 1.0 / FACTOR:
            where = "the tuned preset" if case.preset else "the default"
            text = f"{name} = {own:g} is {num(ratio)} times that of {where}, {other:g}"
            flag = name.replace("_", "-")
            return Symptom(
                "settings",
                text,
                ratio,
                f"outside 1/{FACTOR:g} to {FACTOR:g}",
                case.train(f"--{flag} {other:g}"),
                "the preset",
            )
    return None


def batch(case: RunCase) -> Symptom | None:
    """A batch has enough steps that its gradient is not mostly noise."""
    if not len(case.updates) or not case.updates.has("kl"):
        raise CannotTell("minibatches come from a replay buffer")
    size = case.updates.batch()
    if size is None:
        raise CannotTell("an update has a number of episodes")
    if size >= BATCH:
        return None
    text = f"an update sees {size} steps alone: in so small batches noise wins"
    return Symptom(
        "batch", text, float(size), f"below {BATCH} steps", case.train("--num-envs 8 --num-steps 128"), SCHULMAN
    )


def no_gradient(case: RunCase) -> Symptom | None:
    """There is a gradient."""
    norm = float(np.nanmedian(case.column("grad_norm")))
    if norm > NO_GRADIENT:
        return None
    text = "the policy gradient is 0: all advantages are alike, or the policy has become deterministic"
    return Symptom("no gradient", text, norm, f"up to {NO_GRADIENT:g} (median norm)", case.look(), JONES, sure=True)


def entropy(case: RunCase) -> Symptom | None:
    """The entropy falls, and not at once. Compared with that of the first measured update, where it is positive."""
    path, steps = case.column("entropy"), case.updates.steps
    begun, share = path[np.isfinite(path)][0], steps / max(as_number(case.config.get("steps")), steps[-1])
    if begun <= 0.0:
        raise CannotTell("the first entropy is not positive")
    later, early = path[share >= FROM], path[share <= BEFORE]
    if len(later) and np.nanmedian(later) >= STAYS * begun:
        left = float(np.nanmedian(later) / begun)
        text = f"the entropy stays where it was, {num(begun)} nats: no signal, too small steps, or too large a bonus"
        bonus = case.updates.setting("ent_coef") or 0.0
        advice = case.train("--ent-coef 0") if bonus > 0.0 else case.lr(3.0)
        return Symptom(
            "entropy", text, left, f"from {STAYS:g} of its first value on, after {FROM:.0%} of the run", advice, JONES
        )
    if len(early) and np.nanmin(early) <= LOST * begun:
        least = float(np.nanmin(early))
        text = f"the entropy fell from {num(begun)} to {num(least)} nats at once: the policy stopped exploring"
        limits = f"up to {LOST:g} of its first value, before {BEFORE:.0%} of the run"
        return Symptom("entropy", text, least / begun, limits, case.train("--ent-coef 0.01"), SCHULMAN)
    return None


def kl(case: RunCase) -> Symptom | None:
    """Updates move the policy, and not too far. The limits are those of the report and of docs/metrics.md."""
    path = case.column("kl")
    middle, far = float(np.nanmedian(path)), findings.kl(case.updates)
    if far.mark == "!" and middle > findings.MAX_UPDATE_KL:
        text = (
            f"updates move the policy by {num(middle)} nats (median): too far for data that the policy before collected"
        )
        return Symptom("KL", text, middle, f"above {findings.MAX_UPDATE_KL:g} nats", case.lr(0.1), SCHULMAN)
    least = SMALL_KL if case.updates.spec.reuses_batch else SMALL_KL_ONE_STEP
    if middle >= least or case.updates.bound() is not None:
        return None
    text = f"updates move the policy by {middle:.2g} nats (median): hardly at all"
    return Symptom("KL", text, middle, f"below {least:g} nats", case.lr(10.0), "docs/metrics.md")


def clip(case: RunCase) -> Symptom | None:
    """PPO's clip removes the gradient of some steps, and not of most."""
    fraction = case.column("clip_fraction")
    share, middle = float((lasting(fraction) > CLIPPED).mean()), float(np.nanmedian(fraction))
    if share > 0.5:
        text = f"the clip removes the gradient of {middle:.0%} of the steps (median): later epochs are thrown away"
        return Symptom("clip", text, middle, f"above {CLIPPED:g} in half of the rows", case.lr(0.3), REPORT)
    if np.nanmax(fraction) > 0.0:
        return None
    text = "the clip never removes a gradient: steps are small"
    return Symptom("clip", text, 0.0, "at 0 in all rows", case.lr(3.0), REPORT)


def critic(case: RunCase) -> Symptom | None:
    """The critic explains some of what it is fitted to: late in a run that stalls, or ever. Returns of a solved task may be
    all alike, with nothing to explain.
    """
    if case.solves():
        raise CannotTell("the task is solved")
    path = case.column("explained_variance")
    last, middle = ends(path)[1], float(np.nanmedian(path))
    if last > 0.0 or (middle > 0.0 and not case.stalls()):
        return None
    text = "the critic explains nothing of its targets: it overfits, or does not learn"
    usual = case.updates.setting("lr") or 1e-3
    slow = (case.updates.setting("critic_lr") or usual) < usual
    advice = case.train(f"--critic-lr {usual:g}" if slow else "--critic-epochs 20")
    return Symptom("critic", text, last, "up to 0 explained variance in the last fifth", advice, SCHULMAN)


def gradient_noise(case: RunCase) -> Symptom | None:
    """The gradient's signal is not far below its noise, where it was measured."""
    case.column("meter_groups")
    found = findings.gradient_noise(case.updates)
    if found.mark != "!":
        return None
    snr = float(found.numbers["snr"][-1][0])
    text = found.text.rstrip(".")
    return Symptom("gradient noise", text, snr, f"below {findings.LOW_SNR:g}", case.train("--num-envs 16"), REPORT)


def steps(case: RunCase) -> Symptom | None:
    """Natural steps are accepted, and solved for."""
    case.column("cg_residual")
    for check in (findings.rejected_steps, findings.conjugate_gradients):
        if check is findings.rejected_steps and not case.updates.has("accepted"):
            continue
        found = check(case.updates)
        if found.mark == "!":
            number = float(found.numbers.get("rejected", found.numbers.get("largest_residual", 0.0)))
            text = found.text.rstrip(".")
            return Symptom("steps", text, number, "above a tenth", case.train("--damping 0.3"), REPORT)
    return None


def action_values(case: RunCase) -> list[Symptom]:
    """Action values are of a size that returns allow, and α finds its level."""
    if not len(case.updates) or not case.updates.has("td_error"):
        raise CannotTell("no action values are learned from replayed steps")
    symptoms = []
    for needs, rule in value_findings.CHECKS.items():
        found = rule(case.updates) if case.updates.has(*needs) else None
        if found is not None and found.mark == "!":
            text, number = f"{found.name}: {found.text.rstrip('.')}", float(found.numbers["last"])
            symptoms.append(Symptom("action values", text, number, "as the text says", case.lr(0.3), REPORT))
    return symptoms


def greedy(case: RunCase) -> Symptom | None:
    """The greedy policy is not worse than the sampled one, beyond both intervals."""
    both = [case.evaluation.get(way) for way in ("greedy", "sampled")]
    if not all(isinstance(each, Mapping) and "ci95" in each for each in both):
        raise CannotTell("the final policy was not evaluated in both ways")
    (_, high), (low, _) = both[0]["ci95"], both[1]["ci95"]  # pyright: ignore[reportOptionalSubscript]
    if high is None or low is None or high >= low:  # without a bound there is no telling
        return None
    means = [float(each["mean"]) for each in both]  # pyright: ignore[reportOptionalSubscript]
    text = (
        f"greedy actions have the mean return {num(means[0])}, sampled ones {num(means[1])}: the mode is no good action"
    )
    advice = f"policygrad.load({case.name!r}).predict(obs, deterministic=False)"
    return Symptom("greedy", text, means[0] - means[1], "below 0, beyond both 95 % intervals", advice, JONES, sure=True)


RULES = [
    SymptomRule("stopped", stopped, "an error stopped the run", "yes"),
    SymptomRule("no episodes", no_episodes, "none ended", f"from {SURE:,} steps on"),
    SymptomRule("equal returns", equal_returns, "all returns are equal", "yes"),
    SymptomRule("not improving", not_improving, f"no rise by {ERRORS:g} standard errors"),
    SymptomRule("lost again", lost_again, f"the return lost over {percent(REST)} of its rise"),
    SymptomRule(
        "progress",
        task_rules.progress,
        f"the mean return is level, but the best rose by {task_rules.MOVED:g}* standard deviations, or episode lengths moved "
        f"by {task_rules.MOVED:g}* standard errors: wait",
    ),
    SymptomRule("limit", task_rules.limit, "all episodes have one length: none reached an end", stalls=True),
    SymptomRule("short run", short_run, f"under {percent(SHORT)}* of the preset's steps"),
    SymptomRule(
        "settings", settings, f"a learning rate over {FACTOR:g} times* the preset's, or below 1/{FACTOR:g}", stalls=True
    ),
    SymptomRule(
        "horizon",
        settings_rules.horizon,
        f"1/(1 − γ) below {settings_rules.NEAR:g}* steps and {percent(settings_rules.SHARE)}* of the mean episode's length",
    ),
    SymptomRule(
        "replay",
        settings_rules.replay,
        f"a stored step is replayed under {settings_rules.SELDOM:g}* or over {settings_rules.OFTEN:,.0f}* times",
        stalls=True,
    ),
    SymptomRule("batch", batch, f"under {BATCH}* steps per update", stalls=True),
    SymptomRule(
        "first ratio",
        update_rules.first_ratio,
        f"log-probabilities before the update are {update_rules.RATIO:g}* off those of the policy that acted",
    ),
    SymptomRule(
        "no advantage",
        update_rules.no_advantage,
        f"all advantages equal in over {percent(update_rules.SPREADLESS)}* of the rows",
    ),
    SymptomRule("no gradient", no_gradient, f"median norm at most {NO_GRADIENT:g}*", "yes"),
    SymptomRule(
        "gradient clipping",
        update_rules.gradient_clipping,
        f"over {percent(update_rules.CLIPPED_GRADIENTS)}* of gradients exceed `max_grad_norm`",
        stalls=True,
    ),
    SymptomRule(
        "momentum",
        update_rules.momentum,
        f"median cosine of gradient and step below {update_rules.COSINE:g}*",
        stalls=True,
    ),
    SymptomRule(
        "clipped actions",
        update_rules.clipped_actions,
        f"over {percent(update_rules.CLIPPED_ACTIONS)}* of action components clipped, in half of the rows",
        stalls=True,
    ),
    SymptomRule(
        "entropy",
        entropy,
        f"at least {percent(STAYS)}* of its first value after {percent(FROM)}* of the run, or at most {percent(LOST)}* before "
        f"{percent(BEFORE)}*",
        stalls=True,
    ),
    SymptomRule(
        "entropy swings",
        update_rules.entropy_swings,
        f"{update_rules.TURNS} or more turns*, each by {percent(update_rules.SWING)}* of its first value",
        stalls=True,
    ),
    SymptomRule(
        "KL",
        kl,
        f"median above {findings.MAX_UPDATE_KL:g}, or below {SMALL_KL:g} (one step per batch: {SMALL_KL_ONE_STEP:g})",
        stalls=True,
    ),
    SymptomRule("clip", clip, f"over {percent(CLIPPED)} of steps in half of the rows, or none in all", stalls=True),
    SymptomRule(
        "critic",
        critic,
        "explained variance at most 0 in the last fifth of a run that stalls, or always; not if solved",
    ),
    SymptomRule("gradient noise", gradient_noise, "the report's warning", stalls=True),
    SymptomRule("steps", steps, "the report's warnings", stalls=True),
    SymptomRule("action values", action_values, "the report's warnings, off-policy"),
    SymptomRule("greedy", greedy, "greedy actions worse than sampled ones, beyond both 95 % intervals", "yes"),
    SymptomRule(
        "luck",
        task_rules.luck,
        f"better than another setting with {task_rules.SEEDS} or more seeds in the folder, and a permutation test sees no "
        "difference",
    ),
]


def examine_run(run: RunDirectory) -> Diagnosis:
    """What the files of a run show. Raises RunError for what is no run."""
    case = read_case(run)
    subject = (
        f"{case.name}: {case.algo} on {case.env}, {len(case.rows)} rows of metrics, {len(case.returns):,} episodes"
    )
    return examine(subject, RULES, case)
