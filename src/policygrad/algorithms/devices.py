"""Where networks and batches are: on the CPU, or on an accelerator that torch finds."""

from __future__ import annotations

from typing import Any

import torch

from policygrad.algorithms.config import ConfigError

CPU = "cpu"


def find_device(word: str | torch.device) -> str:
    """The device in one word: "cpu", "cuda", "cuda:1", …; "auto" is "cuda" where torch finds one, and "cpu" otherwise.

    Raises ConfigError where torch finds no such device, and for one without numbers of 64 bits, which the normaliser and the
    KL divergence need.
    """
    if str(word) == "auto":
        return "cuda" if torch.cuda.is_available() else CPU
    try:
        device = torch.device(word)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device must be cpu, cuda, cuda:1 and so on, or auto, got {word!r}") from error
    try:
        float(torch.ones((), dtype=torch.float64, device=device))
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(f"torch cannot use device = {word} here ({reason}): take device = cpu") from error
    return str(device)


def device_for(asked: str | None, said: Any) -> str:
    """The device of an agent from a file: the one asked for, or else the one that the file names, or the CPU where that is not
    here.
    """
    if asked is not None:
        return find_device(asked)
    try:
        return find_device(said) if isinstance(said, str) else CPU
    except ConfigError:
        return CPU


def check_device(algo: str, device: str, kernel: str, learner: Any) -> None:
    """Refuse a device for what runs on the CPU only: learners that do not say `any_device`, and kernels.

    Raises ConfigError, which names the recipe or the kernel.
    """
    if device == CPU:
        return
    if not getattr(learner, "any_device", False):
        raise ConfigError(f"{algo} trains on the CPU only, got device = {device}: leave device out, or take ppo")
    if kernel not in ("auto", "autograd"):
        raise ConfigError(f"kernel = {kernel} is for the CPU only, got device = {device}: take kernel = autograd")
