"""Draw what `projection_while_training.py` measured.

    python experiments/projection_plot.py FOLDER PICTURE.svg

One picture for light and dark pages.
"""

import sys
from pathlib import Path

import numpy as np
from projection_while_training import CONTROLS, LAYER, PERSONAS, RUNS, shifts

from persona_probe.files import read_json, write_text
from persona_probe.report.palette import FIXED

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 300, 300, 48, 54, 62, 24
TICKS = (0, 8, 24, 64, 144, 240)
STYLE = """<style>
text{font:12px system-ui,sans-serif;fill:#3a3f47} .title{font-weight:600;font-size:13px}
.small{fill:#5b616b;font-size:11px} .grid{stroke:#858a93;stroke-opacity:.25}
.band{fill:#858a93;fill-opacity:.22} .control{stroke:#3a3f47}
.ground{fill:#fff}
@media (prefers-color-scheme:dark){text{fill:#d5d9e0}.small{fill:#a4abb6}.control{stroke:#d5d9e0}
.ground{fill:#14171c}}
</style>"""


class Panel:
    """One set of axes; steps are on a square-root scale, where change happens."""

    def __init__(self, number: int, title: str, small: str, low: float, high: float) -> None:
        self.x0 = LEFT + number * (WIDTH + LEFT + GAP)
        self.low, self.high = low, high
        self.parts = [
            f'<text class="title" x="{self.x0}" y="20">{title}</text>',
            f'<text class="small" x="{self.x0}" y="36">{small}</text>',
        ]
        for step in TICKS:
            x = self.x(step)
            self.parts.append(
                f'<text class="small" x="{x:.1f}" y="{TOP + HEIGHT + 16}" '
                f'text-anchor="middle">{step}</text>'
            )
        for value in np.linspace(low, high, 6):
            y = self.y(value)
            self.parts.append(
                f'<line class="grid" x1="{self.x0}" x2="{self.x0 + WIDTH}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/><text class="small" x="{self.x0 - 6}" y="{y + 4:.1f}" '
                f'text-anchor="end">{value:g}</text>'
            )

    def x(self, step: float) -> float:
        return float(self.x0 + WIDTH * np.sqrt(step / TICKS[-1]))

    def y(self, value: float) -> float:
        return float(TOP + HEIGHT * (self.high - value) / (self.high - self.low))

    def line(self, steps: list[int], values: list[float], look: str) -> None:
        points = " ".join(
            f"{self.x(s):.1f},{self.y(v):.1f}" for s, v in zip(steps, values, strict=True)
        )
        self.parts.append(f'<polyline points="{points}" fill="none" {look}/>')

    def band(self, steps: list[int], low: list[float], high: list[float]) -> None:
        ends = [*zip(steps, low, strict=True), *reversed([*zip(steps, high, strict=True)])]
        points = " ".join(f"{self.x(s):.1f},{self.y(v):.1f}" for s, v in ends)
        self.parts.append(f'<polygon class="band" points="{points}"/>')


def draw(folder: Path) -> str:
    """The picture as SVG."""
    runs = read_json(folder / "result.json")["runs"]
    panels = [
        Panel(
            0,
            f"Shift along the own direction, layer {LAYER}",
            "standard deviations of the prompts",
            -20,
            30,
        ),
        Panel(1, "Probability of refusing", "252 prompts of untrained categories", 0, 1),
        Panel(2, "Profile moved towards the own character", "252 diagnostic items", -0.25, 1),
    ]
    ends = [[], []]  # of the random directions, run by run
    for name in RUNS:
        curves = np.quantile(np.array(runs[name]["random"]), [0.025, 0.975], axis=1)
        for side, curve in zip(ends, curves, strict=True):
            side.append(curve)
    steps = runs[RUNS[0]]["steps"]
    panels[0].band(steps, np.min(ends[0], axis=0).tolist(), np.max(ends[1], axis=0).tolist())
    for name in (*RUNS, *CONTROLS):
        kind, told = name.rsplit("-", 1)[0], runs[name]
        towards = kind if kind in PERSONAS else "virtue"
        own = shifts(folder, name, told["steps"], LAYER)[towards]
        look = (
            f'stroke="{FIXED[kind]}" stroke-width="1.5"'
            if kind in PERSONAS
            else (
                'class="control" stroke-width="1.5" stroke-dasharray="'
                + ("2 3" if kind == "placebo" else "7 3")
                + '"'
            )
        )
        for panel, values in zip(panels, (own, told["refusal"], told["profile"]), strict=True):
            panel.line(told["steps"], values, look)
    width = LEFT + 3 * (WIDTH + GAP) + 2 * LEFT
    height = TOP + HEIGHT + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>Shift, refusals and profile during 12 watched finetunes and 2 controls</title>",
            STYLE,
            f'<rect class="ground" width="{width}" height="{height}"/>',
            *(part for panel in panels for part in panel.parts),
            *_key(height),
            "</svg>\n",
        ]
    )


def _key(height: int) -> list[str]:
    entries = [(p, f'stroke="{FIXED[p]}" stroke-width="2"') for p in PERSONAS]
    entries += [
        ("placebo", 'class="control" stroke-width="1.5" stroke-dasharray="2 3"'),
        ("refusal-only", 'class="control" stroke-width="1.5" stroke-dasharray="7 3"'),
    ]
    parts, x, y = [], LEFT, height - 16
    for name, look in entries:
        parts.append(f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" {look}/>')
        parts.append(f'<text x="{x + 28}" y="{y + 4}">{name}</text>')
        x += 28 + 8 * len(name) + 18
    parts.append(f'<rect class="band" x="{x}" y="{y - 6}" width="22" height="12"/>')
    said = "random directions, middle 95%"
    parts.append(f'<text x="{x + 28}" y="{y + 4}">{said}</text>')
    parts.append(
        f'<text class="small" x="{LEFT + WIDTH}" y="{height - 34}" text-anchor="end">'
        "training step, square-root scale</text>"
    )
    return parts


if __name__ == "__main__":
    write_text(Path(sys.argv[2]), draw(Path(sys.argv[1])))
