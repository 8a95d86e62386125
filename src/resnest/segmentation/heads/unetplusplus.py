"""U-Net++ (arXiv 1807.10165) on a backbone: every step of a U-Net is also made from each coarser map.

    head = UNetPlusPlusHead(backbone.channels, SegmenterSpec(head="unetplusplus"), num_classes=21)
    logits = head(backbone(images), images.shape[2:])             # (N, 21, H, W)

A node "i_j" enlarges what began at map i, counted from the coarsest, to the size of map j + 1; "0_4" makes the full
size. A node has the backbone's map of its size and all nodes of its size that began at a finer map appended.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from resnest.segmentation.heads.common import ALL_MAPS, Head, Logits, initialise
from resnest.segmentation.heads.unet import Step
from resnest.segmentation.spec import SegmenterSpec


class UNetPlusPlusHead(Head):
    """[C1, ..., C5] -> (N, K, H, W), the size of the image."""

    takes = ALL_MAPS
    full_size = True

    def __init__(self, in_chans: Sequence[int], spec: SegmenterSpec, num_classes: int) -> None:
        super().__init__()
        widths = spec.decoder_channels
        coarse = list(in_chans[::-1])  # C5, ..., C1
        nodes = {}
        for to in range(len(coarse) - 1):
            skip = coarse[to + 1]
            for start in range(to + 1):
                first = start == 0  # of the U-Net itself, with its widths; the others have those of the backbone
                into = (coarse[0] if to == 0 else widths[to - 1]) if first else coarse[to]
                nodes[f"{start}_{to}"] = Step(into, skip * (to + 1 - start), widths[to] if first else skip, spec)
        nodes[f"0_{len(coarse) - 1}"] = Step(widths[-2], 0, widths[-1], spec)
        self.nodes = nn.ModuleDict(nodes)
        self.predict = Logits(widths[-1], num_classes, 3, spec)
        initialise(self)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        coarse = list(maps[::-1])
        ends: list[Tensor] = []  # by where they began: the newest node of each, all of the same size
        for to, skip in enumerate(coarse[1:]):
            before, ends = [*ends, coarse[to]], []
            for start in range(to, -1, -1):  # the finest first: the others have it appended
                node = self.nodes[f"{start}_{to}"]
                ends.insert(0, node(before[start], [*ends, skip], skip.shape[2:]))
        logits: Tensor = self.predict(self.nodes[f"0_{len(coarse) - 1}"](ends[0], [], size))
        return logits
