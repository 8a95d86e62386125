"""Labels drawn into a picture, with Pillow's built-in font (no font file to ship, no OpenCV).

draw_labels(image, [("rose", 0.91), ("tulip", 0.06)]).save("out.jpg")
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER, BAR = (255, 255, 255), (150, 156, 164), (18, 22, 28), (72, 140, 255)


def draw_labels(image: Image.Image, ranking: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture with a panel below it: one line a label, a bar as long as its score.

    Pictures under 320 pixels are enlarged so that the text stays readable. Without labels the panel says so.
    """
    scale = max(1.0, 320 / image.width)
    picture = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    size = max(14, picture.width // 32)
    font = ImageFont.load_default(size)
    row, pad = round(size * 1.7), size // 2
    canvas = Image.new("RGB", (picture.width, picture.height + row * max(1, len(ranking)) + 2 * pad), PAPER)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (label, score) in enumerate(ranking):
        top = picture.height + pad + index * row
        _draw_row(pen, font, (pad, top, picture.width - pad, top + row), label, score)
    if not ranking:
        pen.text((pad, picture.height + pad), "no label", fill=FAINT, font=font)
    return canvas


def _draw_row(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    box: tuple[int, int, int, int],
    label: str,
    score: float,
) -> None:
    left, top, right, bottom = box
    percent = f"{score:.1%}"
    room = right - left - pen.textlength("100.0%  ", font)
    while pen.textlength(label, font) > room and len(label) > 2:
        label = label[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    thickness = max(2, (bottom - top) // 10)
    pen.text((left, top), label, fill=INK, font=font)
    pen.text((right, top), percent, fill=INK, font=font, anchor="ra")
    line = bottom - thickness - 1
    pen.rectangle((left, line, left + max(1, round((right - left) * score)), line + thickness - 1), fill=BAR)
