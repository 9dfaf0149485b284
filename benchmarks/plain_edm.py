"""EDM in the plain form of the published code: what `atomrl.networks` is compared with.

One list of edges over the real pairs of a batch, the concatenated features [h_i, h_j, e_ij] through whole linear
layers, sums by `index_add`, every sample padded to the largest molecule, ordinary autograd over one step at a time.
Vectorised, with the weights of an `EDMNetwork` under the same names, and the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from atomrl.diffusion.edm import ReverseKernel, project, remove_mean
from atomrl.networks.edm import EDMConfig

COORDS_RANGE = 15.0


def edges_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Receivers and senders, (E,) each: rows of the flattened (B * N) atoms; pairs of different real atoms."""
    atoms = mask.shape[1]
    real = mask.bool()
    pairs = real[:, :, None] & real[:, None, :] & ~torch.eye(atoms, dtype=torch.bool, device=mask.device)
    molecule, receiver, sender = pairs.nonzero(as_tuple=True)
    return molecule * atoms + receiver, molecule * atoms + sender


class PlainEDM(nn.Module):
    """eps_theta(z_t, t, context) as `EDMNetwork`, over an edge list."""

    def __init__(self, config: EDMConfig, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        names = [name.removeprefix("dynamics.egnn.") for name in state if name.startswith("dynamics.egnn.")]
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(state[f"dynamics.egnn.{name}"].detach().clone()) for name in names}
        )

    def gradients(self) -> dict[str, Tensor]:
        """Gradients by the published names (without `dynamics.egnn.`)."""
        return {name.replace("/", "."): w.grad for name, w in self.weights.items() if w.grad is not None}

    def linear(self, name: str, inputs: Tensor) -> Tensor:
        """A linear layer by its published name."""
        key = name.replace(".", "/")
        bias = self.weights.get(f"{key}/bias")
        return functional.linear(inputs, self.weights[f"{key}/weight"], bias)

    def two_layers(self, name: str, inputs: Tensor) -> Tensor:
        """Linear, SiLU, linear, SiLU."""
        return functional.silu(self.linear(f"{name}.2", functional.silu(self.linear(f"{name}.0", inputs))))

    def gather(self, values: Tensor, receivers: Tensor, atoms: int) -> Tensor:
        """Sum (or mean) of edge values (E, C) at their receivers, (B * N, C)."""
        total = values.new_zeros(atoms, values.shape[1]).index_add(0, receivers, values)
        if self.config.aggregation == "mean":
            count = values.new_zeros(atoms).index_add(0, receivers, values.new_ones(len(receivers)))
            return total / count.clamp(min=1)[:, None]
        return total / self.config.normalization_factor

    def embed(self, squared: Tensor) -> Tensor:
        """Features of squared distances (E, 1)."""
        if not self.config.sin_embedding:
            return squared
        waves = 2 * math.pi / 15 * 4 ** torch.arange(6, dtype=squared.dtype, device=squared.device)
        phase = torch.sqrt(squared + 1e-8) * waves
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    def block(
        self, name: str, nodes: Tensor, positions: Tensor, initial: Tensor, edges: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Message layers and a coordinate layer; nodes (B * N, H), positions (B * N, 3)."""
        receivers, senders = edges
        difference = positions[receivers] - positions[senders]
        squared = difference.square().sum(1, keepdim=True)
        geometry = torch.cat([self.embed(squared), initial], dim=1)
        for k in range(self.config.inv_sublayers):
            layer = f"{name}.gcl_{k}"
            pair = torch.cat([nodes[receivers], nodes[senders], geometry], dim=1)
            messages = self.two_layers(f"{layer}.edge_mlp", pair)
            if self.config.attention:
                messages = messages * torch.sigmoid(self.linear(f"{layer}.att_mlp.0", messages))
            node = torch.cat([nodes, self.gather(messages, receivers, len(nodes))], dim=1)
            hidden = functional.silu(self.linear(f"{layer}.node_mlp.0", node))
            nodes = nodes + self.linear(f"{layer}.node_mlp.2", hidden)
        pair = torch.cat([nodes[receivers], nodes[senders], geometry], dim=1)
        layer = f"{name}.gcl_equiv.coord_mlp"
        push = self.linear(f"{layer}.4", self.two_layers(layer, pair))
        if self.config.tanh:
            push = torch.tanh(push) * COORDS_RANGE
        direction = difference / (torch.sqrt(squared + 1e-8) + self.config.norm_constant)
        return nodes, positions + self.gather(direction * push, receivers, len(nodes))

    def forward(self, latents: Tensor, time: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Noise (B, N, 3 + F) in latents (B, N, 3 + F) at times (B,), with mask (B, N) and context (B, C)."""
        batch, atoms = mask.shape
        edges = edges_of(mask)
        inputs = [latents[..., 3:], time[:, None, None].expand(batch, atoms, 1)]
        if context is not None:
            inputs.append(context[:, None].expand(batch, atoms, context.shape[1]))
        nodes = self.linear("embedding", torch.cat(inputs, dim=-1).flatten(0, 1))
        start = positions = latents[..., :3].flatten(0, 1)
        initial = self.embed((start[edges[0]] - start[edges[1]]).square().sum(1, keepdim=True))
        for k in range(self.config.layers):
            nodes, positions = self.block(f"e_block_{k}", nodes, positions, initial, edges)
        out = self.linear("embedding_out", nodes).unflatten(0, (batch, atoms))
        shift = remove_mean((positions - start).unflatten(0, (batch, atoms)), mask)
        return torch.cat([shift, out[..., : self.config.features]], dim=-1) * mask[..., None]


def rollout(
    network: nn.Module, kernels: Sequence[ReverseKernel], noise: Tensor, mask: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Latents before each step and after the last, the steps' log-probabilities (B,), and eps(z_0, 0) of the decoder.

    Args:
        network: predicts the noise.
        kernels: of the steps t = T-1..0, in that order.
        noise: projected normals, z_T and one per step, (T + 1, B, N, 3 + F).
        mask: (B, N).
    """
    latents, log_probs = [noise[0]], []
    with torch.no_grad():
        for place, kernel in enumerate(kernels):
            mean = plain_mean(network, kernel, latents[-1], (len(kernels) - place) / len(kernels), mask)
            latents.append(project(mean + kernel.std * noise[place + 1], mask))
            log_probs.append(plain_log_prob(latents[-1], mean, kernel.std, mask))
        decoded: Tensor = network(latents[-1], mask.new_zeros(len(mask)), mask)
    return latents, log_probs, decoded


def update(
    network: nn.Module,
    kernels: Sequence[ReverseKernel],
    latents: Sequence[Tensor],
    log_probs: Sequence[Tensor],
    advantages: Tensor,
    mask: Tensor,
    clip_range: float,
) -> None:
    """Add the gradient of the clipped objective over all steps, one step at a time, to the weights' gradients."""
    for place, kernel in enumerate(kernels):
        mean = plain_mean(network, kernel, latents[place], (len(kernels) - place) / len(kernels), mask)
        ratio = torch.exp(plain_log_prob(latents[place + 1], mean, kernel.std, mask) - log_probs[place])
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        loss = torch.maximum(-advantages * ratio, -advantages * clipped).mean() / len(kernels)
        loss.backward()


def plain_mean(network: nn.Module, kernel: ReverseKernel, latents: Tensor, time: float, mask: Tensor) -> Tensor:
    """Mean of a reverse step, (B, N, 3 + F)."""
    predicted: Tensor = network(latents, torch.full((len(mask),), time, dtype=mask.dtype, device=mask.device), mask)
    return kernel.mean(latents, predicted)


def plain_log_prob(latents: Tensor, mean: Tensor, std: float, mask: Tensor) -> Tensor:
    """Normal log-density summed over the real atoms and channels, (B,)."""
    density = -(((latents - mean) / std) ** 2) / 2 - math.log(std) - math.log(2 * math.pi) / 2
    return (density * mask[..., None]).sum((1, 2))
