"""Pieces that several families share, and the seeded, calibrated initialisation of a sample."""

import torch
from torch import Tensor, nn


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Same-padded convolution without bias, followed by batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """`conv_bn` and a ReLU."""
    return nn.Sequential(*conv_bn(in_channels, out_channels, kernel, stride, groups), nn.ReLU(inplace=True))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal parts: `n (g c) h w -> n (c g) h w`."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2)
    return x.reshape(batch, channels, height, width)


def noise_images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise whose contrast and colour differ from image to image, so that pooled features vary as well."""
    per_image = (shape[0], shape[1], 1, 1)
    contrast = 0.5 + torch.rand(per_image, generator=generator)
    return torch.randn(shape, generator=generator) * contrast + 0.5 * torch.randn(
        per_image, generator=generator
    )


def calibrate(model: nn.Module, image_shape: tuple[int, ...], seed: int) -> None:
    """Random scales and shifts for every normalisation; running statistics of BatchNorm measured on noise.

    The statistics are those of the network's own activations, so nothing explodes however deep it is.
    Shifts around zero would close half of the ReLUs, and fifty such layers amplify a rounding error a
    hundredfold; around a half they do not.
    """
    generator = torch.Generator().manual_seed(seed)
    batch_norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.5, 0.25, generator=generator)
    model.eval()
    for norm in batch_norms:
        norm.train()
        norm.momentum = None
    if batch_norms:
        with torch.no_grad():
            for _ in range(3):
                model(noise_images((4, *image_shape), generator))
    for norm in batch_norms:
        norm.eval()
        norm.momentum = 0.1
        variance = norm.get_buffer("running_var")
        # an almost dead channel would amplify rounding errors
        variance.clamp_(min=0.1 * variance.mean().item())
