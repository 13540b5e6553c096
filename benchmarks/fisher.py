"""What a Fisher-vector product costs, in gradient evaluations, by four ways of computing the same numbers.

    python benchmarks/fisher.py [--rows 2048] [--repeats 9]

- closed form: push, head, pull through both seams, in numpy (`PolicyEvaluation.fisher_product` where there is a closed form);
- two reverse passes: the same seams by autograd, the push as the derivative of a vector-Jacobian product (elsewhere);
- forward mode: torch.func.jvp for the push, autograd for the rest;
- double backward: the Hessian-vector product of the whole mean KL, as most libraries have it.

A gradient evaluation is a forward pass and a weighted score, `evaluate` and `gradient`, of the same kernel. One thread. Ratios
are paired: product and gradient alternate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policygrad.data import Batch
from policygrad.models.kernels import trainable
from policygrad.models.policy import Policy, PolicyEvaluation, make_policy
from policygrad.training.threads import single_thread

SPACES = {
    "CartPole, softmax": (spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)),
    "HalfCheetah, normal": (spaces.Box(-1.0, 1.0, (17,)), spaces.Box(-1.0, 1.0, (6,))),
}
Product = Callable[[Tensor], Tensor]


def seams(policy: Policy, obs: Tensor, act: Tensor, share: Tensor) -> Product:
    """F v as the library computes it."""
    evaluation = policy.evaluate(Batch.of(obs, act))
    return lambda v: evaluation.fisher_product(v, share)


def forward_mode(policy: Policy, obs: Tensor, act: Tensor, share: Tensor) -> Product:
    """F v with torch.func.jvp for the push."""
    evaluation: PolicyEvaluation = policy.evaluate(Batch.of(obs, act))
    names = [name for name, p in policy.network.named_parameters() if p.requires_grad]
    parameters = {name: p.detach() for name, p in policy.network.named_parameters()}
    features = policy.features(obs)

    def network(chosen: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(policy.network, chosen, (features,))

    def product(v: Tensor) -> Tensor:
        parts = v.split([parameters[name].numel() for name in names])
        along = {name: part.view_as(parameters[name]) for name, part in zip(names, parts, strict=True)}
        tangent = torch.func.jvp(network, (parameters,), (along,))[1]
        return evaluation.kernel.vjp(policy.head.fisher(evaluation.dist, tangent) * share.unsqueeze(-1)).clone()

    return product


def double_backward(policy: Policy, obs: Tensor, act: Tensor, share: Tensor) -> Product:
    """F v as the Hessian-vector product of the mean KL."""
    parameters = trainable(policy.network)
    dist = policy(obs)
    kl = (share * policy.head.kl(dist.detach(), dist)).sum()
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(kl, parameters, create_graph=True)])

    def product(v: Tensor) -> Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(flat @ v, parameters, retain_graph=True)])

    return product


WAYS = {
    "closed form": ("closed_form", seams),
    "two reverse passes": ("autograd", seams),
    "forward mode": ("autograd", forward_mode),
    "double backward": ("autograd", double_backward),
}


def seconds(function: Callable[[], object], calls: int = 10) -> float:
    """The time of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(f"{'policy 64 × 64':<22}{'way':<20}{'gradient':>10}{'product':>10}   ratio [lowest, highest]")
    for name, (observation_space, action_space) in SPACES.items():
        reference = None
        for way, (kernel, make) in WAYS.items():
            policy = make_policy(observation_space, action_space, kernel=kernel)
            policy.flat.add_(0.1 * torch.randn(policy.flat.shape, generator=torch.Generator().manual_seed(0)))
            rng = np.random.default_rng(0)
            obs = torch.from_numpy(rng.standard_normal((args.rows, *observation_space.shape)).astype(np.float32))
            noise = policy.head.noise(rng, (args.rows,))
            act = torch.as_tensor(policy.head.sample(policy.outputs(obs.numpy()), noise))
            share = torch.full((args.rows,), 1.0 / args.rows)
            v = torch.from_numpy(rng.standard_normal(len(policy.flat)).astype(np.float32))
            found = make(policy, obs, act, share)(v).clone()
            gradient_times, product_times = [], []
            for _ in range(args.repeats):
                gradient_times.append(seconds(lambda: policy.evaluate(Batch.of(obs, act)).gradient(share)))  # noqa: B023
                product = make(policy, obs, act, share)
                product_times.append(seconds(lambda: product(v)))  # noqa: B023
            reference = found if reference is None else reference
            torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-5)
            ratios = sorted(p / g for p, g in zip(product_times, gradient_times, strict=True))
            times = "".join(f"{1e6 * median(t):>7.0f} µs" for t in (gradient_times, product_times))
            print(f"{name:<22}{way:<20}{times}   {median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")


if __name__ == "__main__":
    with single_thread():
        main()
