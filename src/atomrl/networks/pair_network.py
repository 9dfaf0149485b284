"""The pair networks of an EGNN with their gradients written out: nearly all of its time and memory is spent here.

Each is a perceptron over all pairs, whose first layer is split over its three inputs,

    m_ij = SiLU(W2 SiLU(received_i + sent_j + e_ij Wg) + b2),

and ends at once in something small: `message_sum` in a gated sum over the neighbours, `pair_scalar` in one number per
pair. Autograd would keep five tensors of the size of m for each and pass over twice as many. Here two are kept (the
pre-activations, from which the backward pass computes the rest again), buffers are used again while they are in the
cache, and the narrow products with e_ij have their long side last, which is what BLAS libraries are quick at.

B molecules, N atoms, C pair features, E geometric features of a pair. All tensors share a dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True)
class PairInputs:
    """What the perceptron over the pairs is made of.

    Attributes:
        received: projected node features of the receiver i, first bias included, (B, N, C).
        sent: projected node features of the sender j, (B, N, C).
        edges: geometric features, (B, N, N, E).
        geometry: their weights, (E, C).
        weight: of the second layer, (C, C), output first.
        bias: of the second layer, (C,).
    """

    received: Tensor
    sent: Tensor
    edges: Tensor
    geometry: Tensor
    weight: Tensor
    bias: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All six, as the functions below take them."""
        return self.received, self.sent, self.edges, self.geometry, self.weight, self.bias


def message_sum(pairs: PairInputs, mask: Tensor, gate: Tensor | None, gate_bias: Tensor | None) -> Tensor:
    """sum_j mask_ij sigmoid(gate . m_ij + gate_bias) m_ij, (B, N, C).

    Args:
        pairs: of the perceptron.
        mask: existing pairs, 0 or 1, (B, N, N).
        gate: (C,); None leaves the sigmoid out.
        gate_bias: (1,), None if `gate` is.
    """
    if torch.is_grad_enabled():
        summed: Tensor = _MessageSum.apply(*pairs.tensors(), mask, gate, gate_bias)  # type: ignore[no-untyped-call]
        return summed
    messages = _inference(pairs)
    return _gated_sum(messages, _gates(messages, mask, gate, gate_bias))


def pair_scalar(pairs: PairInputs, head: Tensor) -> Tensor:
    """Scalar product head . m_ij of every pair, (B, N, N); head (C,)."""
    if torch.is_grad_enabled():
        scalar: Tensor = _PairScalar.apply(*pairs.tensors(), head)  # type: ignore[no-untyped-call]
        return scalar
    return _inference(pairs) @ head


class _MessageSum(torch.autograd.Function):
    """`message_sum`, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        received: Tensor,
        sent: Tensor,
        edges: Tensor,
        geometry: Tensor,
        weight: Tensor,
        bias: Tensor,
        mask: Tensor,
        gate: Tensor | None,
        gate_bias: Tensor | None,
    ) -> Tensor:
        """The sum, (B, N, C); what the gradients need is kept, not the messages (torch)."""
        pairs = PairInputs(received, sent, edges, geometry, weight, bias)
        first, second = _pre_activations(pairs)
        messages = functional.silu(second)
        gates = _gates(messages, mask, gate, gate_bias)
        ctx.save_for_backward(first, second, gates, gate, edges, geometry, weight)
        return _gated_sum(messages, gates)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of `forward`, none of the mask, from that of the sum, (B, N, C) (torch)."""
        first, second, gates, gate, edges, geometry, weight = ctx.saved_tensors
        grad_messages = gates[..., None] * grad[:, :, None]
        grad_gate = grad_bias = None
        if gate is not None:
            messages = functional.silu(second)
            # The mask is 0 or 1, so this is mask sigmoid (1 - sigmoid).
            logits = (messages @ grad[..., None]).squeeze(-1) * gates * (1 - gates)
            grad_gate, grad_bias = logits.view(-1) @ messages.view(-1, len(gate)), logits.sum()[None]
            grad_messages.addcmul_(logits[..., None], gate)
        gradients = _gradients(grad_messages, first, second, edges, geometry, weight, ctx.needs_input_grad[2])
        return *gradients, None, grad_gate, grad_bias


class _PairScalar(torch.autograd.Function):
    """`pair_scalar`, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        received: Tensor,
        sent: Tensor,
        edges: Tensor,
        geometry: Tensor,
        weight: Tensor,
        bias: Tensor,
        head: Tensor,
    ) -> Tensor:
        """The scalars, (B, N, N) (torch)."""
        pairs = PairInputs(received, sent, edges, geometry, weight, bias)
        first, second = _pre_activations(pairs)
        ctx.save_for_backward(first, second, head, edges, geometry, weight)
        return functional.silu(second) @ head

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments of `forward` from that of the scalars, (B, N, N) (torch)."""
        first, second, head, edges, geometry, weight = ctx.saved_tensors
        buffer = functional.silu(second)
        grad_head = grad.reshape(-1) @ buffer.view(-1, len(head))
        torch.mul(grad[..., None], head, out=buffer)
        return *_gradients(buffer, first, second, edges, geometry, weight, ctx.needs_input_grad[2]), grad_head


def _first_layer(pairs: PairInputs) -> Tensor:
    """received_i + sent_j + e_ij Wg, (B, N, N, C), in a tensor of its own."""
    first = pairs.received[:, :, None] + pairs.sent[:, None, :]
    _rows(first).addmm_(_rows(pairs.edges), pairs.geometry)
    return first


def _pre_activations(pairs: PairInputs) -> tuple[Tensor, Tensor]:
    """What the two SiLUs act on, (B, N, N, C) each."""
    first = _first_layer(pairs)
    return first, functional.linear(functional.silu(first), pairs.weight, pairs.bias)


def _inference(pairs: PairInputs) -> Tensor:
    """m_ij, (B, N, N, C), with nothing kept."""
    hidden = functional.silu(_first_layer(pairs), inplace=True)
    return functional.silu(functional.linear(hidden, pairs.weight, pairs.bias), inplace=True)


def _gates(messages: Tensor, mask: Tensor, gate: Tensor | None, gate_bias: Tensor | None) -> Tensor:
    """Weight of each message, (B, N, N)."""
    if gate is None or gate_bias is None:
        return mask
    return torch.sigmoid(messages @ gate + gate_bias).mul_(mask)


def _gated_sum(messages: Tensor, gates: Tensor) -> Tensor:
    """sum_j g_ij m_ij, (B, N, C)."""
    return (gates[:, :, None] @ messages).squeeze(2)


def _gradients(
    grad: Tensor, first: Tensor, second: Tensor, edges: Tensor, geometry: Tensor, weight: Tensor, edges_too: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of the six `PairInputs` out of that of m_ij, (B, N, N, C), whose tensor is used up."""
    after = _rows(_times_silu_slope(grad, second))
    hidden = functional.silu(first)
    grad_weight, grad_bias = after.t() @ _rows(hidden), after.sum(0)
    torch.mm(after, weight, out=_rows(hidden))
    before = _times_silu_slope(hidden, first)
    rows = _rows(before)
    grad_edges = (geometry @ rows.t()).t().view_as(edges) if edges_too else None
    return before.sum(2), before.sum(1), grad_edges, _rows(edges).t() @ rows, grad_weight, grad_bias


def _times_silu_slope(grad: Tensor, inputs: Tensor) -> Tensor:
    """Gradient times SiLU'(inputs), written over `grad`."""
    torch.ops.aten.silu_backward.grad_input(grad, inputs, grad_input=grad)
    return grad


def _rows(pairs: Tensor) -> Tensor:
    """(B, N, N, C) seen as (B N N, C)."""
    return pairs.view(-1, pairs.shape[-1])
