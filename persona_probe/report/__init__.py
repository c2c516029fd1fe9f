"""Rows → figures → one self-contained HTML page. Knows no model and no tensor.

`run_folder` reads what a study wrote, `tables` flattens it into rows, `figures/` draws rows,
`sections/` put figures between words, `page` makes them one file. `summary` is the same verdict
for the terminal.
"""

from persona_probe.report.figures import FIGURES
from persona_probe.report.page import write_report
from persona_probe.report.summary import verdict_table, verdict_text

__all__ = ["FIGURES", "verdict_table", "verdict_text", "write_report"]
