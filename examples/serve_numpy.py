"""The same service with NumPy only, in a container ([`Containerfile`](Containerfile)).

    python serve_numpy.py policy.npz

It needs no policygrad, but the two files that `policygrad export RUN --format numpy` wrote beside it, as in docs/deploy.md.
"""

from __future__ import annotations

import sys
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel


class Question(BaseModel):
    """One observation or a batch of them, as nested lists; dicts and lists for spaces with parts."""

    obs: Any
    deterministic: bool = True
    action_masks: Any = None


def service(policy: Any) -> FastAPI:
    """The application."""
    app, description = FastAPI(title="policy"), policy.description

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"policy": f"<policy of {description['algo']} on {description['env']}, in NumPy>"}

    @app.post("/act")
    def act(question: Question) -> dict[str, Any]:
        try:
            action, _ = policy.predict(**dict(question))
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return {"action": action.tolist()}

    return app


if __name__ == "__main__":
    import uvicorn  # pyright: ignore[reportMissingImports]
    from numpy_policy import NumpyPolicy  # pyright: ignore[reportMissingImports]

    uvicorn.run(service(NumpyPolicy.load(sys.argv[1])), host="0.0.0.0", port=8000)
