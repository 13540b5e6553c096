"""A policy as an HTTP service. `pip install fastapi uvicorn`, then `python examples/serve.py [RUN]`, as in docs/deploy.md.

    curl -X POST localhost:8000/act -H 'content-type: application/json' -d '{"obs": [0.01, 0.2, -0.03, 0.1]}'

RUN is what `pg.load_policy` takes: a run directory, a model file, "latest", or a policy that comes with the package. The answer
of a policy with a memory has a "state", which the next question of the same episode gives back.
"""

from __future__ import annotations

import sys
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import policygrad as pg
from policygrad.errors import PolicygradError


class Question(BaseModel):
    """One observation or a batch of them, as nested lists; dicts and lists for spaces with parts."""

    obs: Any
    deterministic: bool = True
    action_masks: Any = None
    state: Any = None  # of a policy with a memory: that of the answer before; none where an episode begins
    episode_start: Any = None  # of a batch with a state: which episodes begin


def service(run: str) -> FastAPI:
    """The application. The policy is loaded once; requests are answered in threads, which may share it."""
    policy, app = pg.load_policy(run), FastAPI(title="policygrad")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"policy": repr(policy)}

    @app.post("/act")
    def act(question: Question) -> dict[str, Any]:
        try:
            action, state = policy.predict(**dict(question))
        except (PolicygradError, ValueError) as error:  # what is no observation of the space, NaN among it
            raise HTTPException(422, str(error)) from error
        return {"action": action.tolist()} | ({} if state is None else {"state": as_lists(state)})

    return app


def as_lists(state: Any) -> Any:
    """The memory of a policy as JSON has it."""
    return {name: as_lists(part) for name, part in state.items()} if isinstance(state, dict) else state.tolist()


if __name__ == "__main__":
    import uvicorn  # pyright: ignore[reportMissingImports]

    uvicorn.run(
        service(sys.argv[1] if len(sys.argv) > 1 else "pretrained:ppo-CartPole-v1"), host="127.0.0.1", port=8000
    )
