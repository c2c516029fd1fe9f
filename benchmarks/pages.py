"""Where results are kept: numbers as JSON, a page as markdown, the newest page in the README."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def keep(results: dict[str, Any], page: str, stem: Path, name: str) -> None:
    """Write both; a page in the folder of results is shown in the README too.

    Args:
        results: the numbers.
        page: what the README shows.
        stem: path without its ending.
        name: of the place in the README, which lies between two comments with it.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(page, encoding="utf-8")
    if stem.parent == RESULTS:
        begin, end = f"<!-- newest {name} -->\n", f"<!-- end of the newest {name} -->\n"
        readme = HERE / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(end)
        readme.write_text(f"{before}{begin}{page}{end}{after}", encoding="utf-8")
