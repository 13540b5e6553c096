"""Flat parameters: all parameters of a network in one vector that the Parameters are views of.

One norm, one optimiser step, one all-reduce, and the vector that natural steps need. The views survive `deepcopy`, `.to()`,
`load_state_dict` and pickling, each of which rebuilds them here. Whoever assigns a parameter, its `.data` or a layer, as
`vector_to_parameters` does, replaces views: `renew` takes the new numbers into the vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from policygrad.errors import UserError
from policygrad.forms import Form, array, like, table
from policygrad.models.kernels import Kernel, make_kernel, trainable


class ReplacedError(UserError, ValueError):
    """Parameters of a network have been replaced by others of other sizes."""


class FlatModule(nn.Module):
    """A module with `network`, the part that the flat vector covers, and a kernel that differentiates it.

    Subclasses set `self.network` and then call `self.flatten()`. Frozen parameters (requires_grad False) stay outside the
    vector and never move. The network is used in eval mode throughout: dropout or batch statistics would make the policy
    that learns another one than the policy that acted.
    """

    made = ("flat", "kernel", "held")  # what `flatten` makes
    kernel_of: Callable[[nn.Module, Tensor, str], Kernel] = staticmethod(make_kernel)  # who makes the kernel
    network: nn.Module
    kernel: Kernel
    flat: Tensor  # (P,) every trainable parameter of `network`, in the order of network.parameters()
    held: list[
        tuple[dict[str, Any], str, Any, int]
    ]  # where parameters and layers are held: table, name, which, its address

    def flatten(self, kernel: str | None = None) -> None:
        """Move the parameters into one vector and make them views of it. kernel: one of `KERNELS`."""
        self.kernel_choice = kernel or getattr(self, "kernel_choice", "auto")
        self.network.eval()
        parameters = trainable(self.network)
        flat = torch.cat([p.detach().reshape(-1) for p in parameters])
        start = 0
        for p in parameters:
            p.data = flat[start : start + p.numel()].view(p.shape)
            start += p.numel()
        self.flat = flat
        self.kernel = self.kernel_of(self.network, flat, self.kernel_choice)
        self.held = []
        for module in self.network.modules():
            self.held += [(module._modules, name, child, 0) for name, child in module._modules.items()]
            own: Any = module._parameters
            self.held += [(own, name, p, p.data_ptr()) for name, p in own.items() if p is not None and p.requires_grad]

    def renew(self) -> None:
        """Take parameters that were assigned from outside into the vector. A microsecond where there are none.

        Raises ReplacedError where there are more or fewer numbers than before.
        """
        for table_, name, which, address in self.held:
            now: Any = table_.get(name)
            if now is not which or (address and now.data_ptr() != address):
                break
        else:
            return
        flat = self.flat
        self.flatten()
        if self.flat.shape != flat.shape:
            raise ReplacedError(
                f"the network has {len(self.flat):,} parameters in place of {len(flat):,}: another network needs another agent"
            )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.flat.device

    def state_form(self) -> Form:
        """Of `state_dict`: arrays of the types and shapes that the module has, its parameters finite."""
        return table(self._forms())

    def _forms(self) -> dict[str, Form]:
        """By name; a buffer of the user's own module may have any numbers."""
        forms = like(self.state_dict())
        for name, p in self.named_parameters():
            forms[name] = array(tuple(p.shape), str(p.dtype).rpartition(".")[2])
        return forms

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As nn.Module's; assign=True would replace the views, which are made again."""
        result = super().load_state_dict(state_dict, strict, assign)
        if assign:
            self.flatten()
        return result

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> FlatModule:
        super()._apply(fn, recurse)
        self.flatten()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatModule:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__({k: deepcopy(v, memo) for k, v in self.__getstate__().items()})
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in self.made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.flatten()
