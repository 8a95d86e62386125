"""U-Net, U-Net++, FPN and UPerNet: any size and output stride, losses, prepared, settings of other heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exports import lively
from resnest.errors import ResnestError
from resnest.segmentation.heads.enlarged import EnlargedConvNorm, joined
from resnest.segmentation.segmenter import Segmenter, build_segmenter, prepared_segmenter
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import HeadNorm, Spec

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 16, 16), stem_width=4)
HEADS: dict[str, dict[str, Any]] = {
    "unet": {"decoder_channels": (32, 16, 16, 8, 8), "attention": "scse"},
    "unetplusplus": {"decoder_channels": (32, 16, 16, 8, 8)},
    "fpn": {"channels": 32, "segmentation_channels": 32},
    "upernet": {"channels": 32},
}


def build(head: str, **changes: Any) -> Segmenter:
    torch.manual_seed(0)
    spec = SegmenterSpec(head=head, **HEADS[head], **changes)  # type: ignore[arg-type]
    return build_segmenter(TINY, spec, 5, zero_gamma=False)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("head", HEADS)
def test_any_size_and_stride(head: str, stride: int) -> None:
    net = lively(build(head, output_stride=stride))
    fast = prepared_segmenter(net)
    with torch.inference_mode():
        for size in ((33, 31), (64, 40), (97, 131)):
            images = torch.randn(1, 3, *size)
            logits = net(images)
            assert logits.shape == (1, 5, *size)
            assert (fast(images) - logits).abs().max() <= 1e-5 * logits.abs().max()


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    ("size", "appended"), [((14, 10), ()), ((14, 10), (3,)), ((14, 10), (3, 4, 5)), ((13, 9), (3,))]
)
def test_enlarged_convolution_is_that_of_the_joined_map(
    size: tuple[int, int], appended: tuple[int, ...], norm: HeadNorm
) -> None:
    torch.manual_seed(0)
    conv = EnlargedConvNorm(6 + sum(appended), 8, 3, norm).double()
    maps = [torch.randn(2, count, *side).double() for count, side in ((6, (7, 5)), *((n, size) for n in appended))]
    inputs = [*(one.requires_grad_() for one in maps), *conv.parameters()]
    folded = conv(maps[0], maps[1:], size)
    plain = conv(joined(maps[0], maps[1:], size))
    like = torch.randn_like(plain)
    torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad(out, inputs, like) for out in (folded, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_losses_reach_every_parameter(head: str) -> None:
    net = build(head, aux=0.2).train()
    losses = net(torch.randn(2, 3, 49, 65), torch.randint(0, 5, (2, 49, 65)).to(torch.uint8))
    sum(losses.values()).backward()
    assert [name for name, one in net.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("head", HEADS)
def test_cards(head: str) -> None:
    spec = SegmenterSpec(head=head, **HEADS[head])  # type: ignore[arg-type]
    told = spec.to_card()
    again = SegmenterSpec.of_card(told)
    assert told["output_stride"] == 32
    assert again.to_card() == told
    old = {"head": "fcn", "output_stride": 8, "branch_dropout": 0.3, "bins": [1, 2]}
    assert SegmenterSpec.of_card(old) == SegmenterSpec(head="fcn", output_stride=8)


def test_a_setting_of_another_head() -> None:
    with pytest.raises(ResnestError, match=r"segmenter\.channels=64 .* segmenter\.head=unet has no use"):
        SegmenterSpec(head="unet", channels=64)
