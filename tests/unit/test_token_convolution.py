"""The convolution along the tokens: the numbers of a grouped Conv2d in float64, gradients too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from brainlm.model.transformer import TokenConvolution


@pytest.mark.parametrize("reach", [1, 3, 17, 65])
@pytest.mark.parametrize("n", [1, 5, 64, 65, 1061])
def test_values_and_gradients(n: int, reach: int) -> None:
    torch.manual_seed(n + reach)
    ours = TokenConvolution(heads=3, reach=reach)
    # As it comes from `Attention`: heads are not contiguous.
    value = torch.randn(2, n, 3, 8).transpose(1, 2).requires_grad_()
    weight, exact = (part.detach().double().requires_grad_() for part in (ours.weight, value))
    upstream = torch.randn(2, 3, n, 8)
    found = ours(value)
    true = F.conv2d(exact, weight, padding=(reach // 2, 0), groups=3)
    found.backward(upstream)
    true.backward(upstream.double())
    for name, mine, truth in (
        ("values", found, true),
        ("gradient of values", value.grad, exact.grad),
        ("gradient of the kernel", ours.weight.grad, weight.grad),
    ):
        assert mine is not None and truth is not None
        # Conv2d's own float32 gradient of the kernel was off by 6% of its largest at n = 1,061.
        error = (mine.double() - truth).abs().max() / truth.abs().max()
        assert error < 2e-6, name


def test_batches_and_bf16() -> None:
    convolution = TokenConvolution(heads=2, reach=5)
    value = torch.randn(4, 2, 30, 6)
    whole = convolution(value)
    torch.testing.assert_close(whole[2:3], convolution(value[2:3]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(convolution(value).float(), whole, atol=0.05)
