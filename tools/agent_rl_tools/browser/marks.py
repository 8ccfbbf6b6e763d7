"""Pictures with the elements' refs drawn on them, for models that see: Set-of-Mark prompting (arXiv:2310.11441)."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

from agent_rl.errors import UserError
from agent_rl_tools.browser.view import Box

_GOLDEN = 0.618034  # neighbours in number get colours far apart


def draw_marks(png: bytes, marks: Sequence[tuple[str, Box]]) -> bytes:
    """The picture with a box and a label for each mark. Raises `UserError` without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise UserError("Marks on pictures need Pillow: pip install 'agent-rl[browser]'.") from error
    image = Image.open(io.BytesIO(png)).convert("RGB")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=11)
    for number, (ref, (x, y, width, height)) in enumerate(marks):
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.9, 0.75))
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline=colour, width=2)
        left, top, right, bottom = draw.textbbox((x, max(0, y - 12)), ref, font=font)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=colour)
        draw.text((x, max(0, y - 12)), ref, fill="white", font=font)
    drawn = io.BytesIO()
    image.save(drawn, "PNG")
    return drawn.getvalue()
