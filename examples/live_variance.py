"""Four estimators' spread around one gradient, for lectures: watch the estimates as they are sampled.

    python examples/live_variance.py                        # variance.html: an animation with buttons, for a lecture
    python examples/live_variance.py --out variance.gif     # an animation; .png for its last picture

All four see the same episodes, and the exact gradient is a cross. Every dot is ĝ from one batch, in the plane of ∇J and of
the direction in which the first estimator scatters most. The circle has the radius √(E‖ĝ − mean‖²) within the plane, from the
dots so far: it settles while the dots keep coming.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle
from torch import Tensor

import policygrad as pg
from policygrad.lab.exact.sampling import sample
from policygrad.reports.style_plots import BLACK, BLUE, ORANGE, chart, styled

WORLD = "small"  # 3 states, 2 actions, 4 steps, γ = 0.9


def estimates(batches: int, episodes: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """ĝ of every batch by each estimator, (batches, P), and ∇J (P,); all estimators see the same episodes."""
    mdp = pg.lab.make_mdp(WORLD)
    policy = pg.lab.starting_policy(WORLD, mdp)
    to_go = pg.StateDiscounted(pg.RewardToGo(mdp.gamma))
    shown = {
        "return of the episode": (pg.TotalReturn(mdp.gamma), pg.NoBaseline()),
        "reward-to-go": (to_go, pg.NoBaseline()),
        "reward-to-go − V": (to_go, pg.CriticValue()),
        "TD error": (pg.StateDiscounted(pg.TDError(mdp.gamma)), pg.CriticValue()),
    }
    rollout = sample(mdp, policy, batches * episodes, torch.Generator().manual_seed(seed))
    values = pg.lab.ExactCritic(mdp)(rollout, policy)
    score = pg.lab.scores(mdp, policy)[rollout.obs[:-1].argmax(-1), rollout.act]  # ∇log π(a_t|s_t), (T, N, P)
    found = {}
    for name, (estimator, baseline) in shown.items():
        adv = pg.advantages(rollout, values, estimator, baseline)[0]  # (T, N)
        found[name] = (adv[..., None] * score).sum(0).view(batches, episodes, -1).mean(1)
    return found, pg.lab.exact_gradient(mdp, policy)


def plane(clouds: dict[str, Tensor], gradient: Tensor) -> Tensor:
    """Two orthogonal directions (P, 2): ∇J, and what is left of the widest spread of the first cloud."""
    along = gradient / gradient.norm()
    rest = next(iter(clouds.values())) - gradient
    rest = rest - (rest @ along)[:, None] * along
    across = torch.linalg.svd(rest, full_matrices=False).Vh[0]
    return torch.stack([along, across], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200, help="dots for each estimator [200]")
    parser.add_argument("--episodes", type=int, default=16, help="episodes in a batch [16]")
    parser.add_argument("--out", type=Path, default=Path("variance.html"), help=".html, .gif or .png [variance.html]")
    given = parser.parse_args()

    clouds, gradient = estimates(given.batches, given.episodes)
    directions = plane(clouds, gradient)
    points = {name: cloud @ directions for name, cloud in clouds.items()}
    reach = 1.1 * max(float(cloud.abs().max()) for cloud in points.values())

    with chart("page", 2.3) as figure:
        figure.set_dpi(110)
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 4, sharex=True, sharey=True)
        figure.subplots_adjust(0.08, 0.12, 0.99, 0.9)
        drawn = []
        for ax, name in zip(axes, points, strict=True):
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=name, xlabel="along ∇J")
            dots = ax.plot([], [], ".", markersize=3, alpha=0.5, color=BLUE)[0]
            mean = ax.plot([], [], "o", color=BLACK, label="mean so far")[0]
            circle = Circle((0, 0), 0.0, fill=False)
            ax.add_patch(circle)
            ax.plot(float(gradient.norm()), 0.0, "x", color=ORANGE, markersize=7, label="∇J")
            note = ax.text(0.03, 0.03, "", transform=ax.transAxes)
            drawn.append((dots, mean, circle, note))
        axes[0].set_ylabel("across")
        axes[0].legend(loc="upper left")

    def frame(number: int) -> list[Artist]:
        for (dots, mean, circle, note), (name, cloud) in zip(drawn, points.items(), strict=True):
            seen, middle = cloud[: number + 1], cloud[: number + 1].mean(0)
            variance = float((clouds[name][: number + 1] - gradient).square().sum(1).mean() / gradient.square().sum())
            dots.set_data(seen[:, 0].numpy(), seen[:, 1].numpy())
            mean.set_data([float(middle[0])], [float(middle[1])])
            circle.set_center((float(middle[0]), float(middle[1])))
            circle.set_radius(float((seen - middle).square().sum(1).mean().sqrt()))
            note.set_text(f"{number + 1} batches\nE‖ĝ − ∇J‖² = {variance:.2f} ‖∇J‖²")
        return [artist for group in drawn for artist in group]

    if given.out.suffix == ".png":
        frame(given.batches - 1)
        figure.savefig(given.out)
    else:
        with styled():
            animation = FuncAnimation(figure, frame, frames=given.batches, interval=50, repeat=False)
            if given.out.suffix == ".html":
                given.out.write_text(animation.to_jshtml(fps=20, default_mode="once"), "utf8")
            else:
                animation.save(given.out, writer="pillow", fps=20)
    print(given.out)
    for name, cloud in clouds.items():
        print(
            f"{name}: E‖ĝ − ∇J‖² = {float((cloud - gradient).square().sum(1).mean() / gradient.square().sum()):.3f} ‖∇J‖²"
        )


if __name__ == "__main__":
    main()
