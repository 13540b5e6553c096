"""Your estimator's bias, and how many episodes it needs. `python examples/audit_your_own.py`"""

import policygrad as pg


def without_the_past(rollout: pg.Rollout, values: pg.Values):  # gives what multiplies ∇log π, (T, N)
    return (rollout.rew * rollout.mask).flip(0).cumsum(0).flip(0)  # reward-to-go, the discount forgotten


print(pg.lab.audit(pg.lab.make_mdp("small"), estimators=["to-go", without_the_past], baselines=["none", "value"]))
