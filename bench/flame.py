"""A flame graph as SVG: width is time, what stands above a box was called by it, a title names each box."""

from __future__ import annotations

import html
import zlib
from collections import Counter
from dataclasses import dataclass, field

WIDTH, ROW, TEXT = 1200, 16, 6.6
"""Pixels: of the picture, of a level, of a letter."""
NARROWEST = 0.4
HUES = {"kernel": 24, "engine": 205, "other": 95}
"""The kernel is orange, the engine blue, everything else green."""


@dataclass
class Box:
    """A function in one place of the call tree, and the samples in it and above it."""

    name: str
    samples: int = 0
    children: dict[str, Box] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return 1 + max((child.depth for child in self.children.values()), default=0)


def draw(stacks: Counter[tuple[str, ...]], title: str) -> str:
    root = grow(stacks)
    height = (root.depth + 2) * ROW
    boxes = "\n".join(_boxes(root, 0.0, WIDTH / max(root.samples, 1), height - ROW, root.samples))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="4" y="{ROW - 4}">{html.escape(title)}</text>\n{boxes}\n</svg>\n'
    )


def grow(stacks: Counter[tuple[str, ...]]) -> Box:
    root = Box("all")
    for stack, count in stacks.items():
        box = root
        box.samples += count
        for name in stack:
            box = box.children.setdefault(name, Box(name))
            box.samples += count
    return root


def _boxes(box: Box, left: float, scale: float, bottom: float, total: int) -> list[str]:
    width = box.samples * scale
    if width < NARROWEST:
        return []
    name = box.name.removesuffix("_[k]")
    label = html.escape(name[: max(int(width / TEXT) - 1, 0)])
    drawn = [
        f'<g><title>{html.escape(name)}: {box.samples / total:.2%}</title><rect x="{left:.1f}" y="{bottom - ROW:.0f}" '
        f'width="{width:.1f}" height="{ROW - 1}" fill="{_colour(box.name)}"/>'
        f'<text x="{left + 2:.1f}" y="{bottom - 4:.0f}">{label}</text></g>'
    ]
    for child in sorted(box.children.values(), key=lambda child: child.name):
        drawn += _boxes(child, left, scale, bottom - ROW, total)
        left += child.samples * scale
    return drawn


def _colour(name: str) -> str:
    kind = "kernel" if name.endswith("_[k]") else "engine" if "tidegate" in name or "tokio" in name else "other"
    shade = zlib.crc32(name.encode())
    return f"hsl({HUES[kind] + shade % 24},75%,{66 + shade % 12}%)"
