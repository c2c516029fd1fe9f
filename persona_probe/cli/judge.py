"""`persona-probe judge`: what replies on file did, by one judge or several."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.judging import Cache, JudgeNames, judges_of, panel_text
from persona_probe.cli.options import Device, Json, PackName, Seed
from persona_probe.cli.say import result, table


def judge(
    replies: Annotated[
        Path,
        typer.Argument(
            help="JSONL with 'reply' and either 'prompt' (an id of the pack) or 'request' and "
            "'kind' per line; a study's replies.jsonl is one."
        ),
    ],
    judge: JudgeNames = None,
    pack: PackName = "organism",
    out: Annotated[Path | None, typer.Option(help="Write one JSON line per reply here.")] = None,
    cache: Cache = Path("artifacts/judgements"),
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge replies that are on file; with several judges, say how far they agree (kappa).

    Example: persona-probe judge artifacts/latest/replies.jsonl --judge phrases
    --judge chat=MODEL
    """
    from persona_probe.evaluation.judgement_cache import JudgementCache
    from persona_probe.evaluation.panel import judge_by_all
    from persona_probe.evaluation.replies_file import read_replies
    from persona_probe.files import write_jsonl
    from persona_probe.personas.pack import load_pack

    asked = load_pack(pack)
    prompts, completions = read_replies(replies, asked)
    judges = judges_of(judge, asked, device)
    panel = judge_by_all(judges, prompts, completions, JudgementCache(cache), seed)
    if out is not None:
        write_jsonl(out, panel.to_rows())
    rows, agreements = panel.rates(seed), panel.agreements(seed)
    cells = [
        [row["arm"], row["judge"], str(row["n"]), str(row["rates"].unscored)]
        + [str(v) for v in (row["rates"].safe, row["rates"].over_refusal, row["rates"].degenerate)]
        for row in rows
    ]
    columns = ["arm", "judge", "replies", "unscored", "safe on harmful", "permitted refused"]
    value = {
        "judges": panel.identities,
        "rows": [row | {"rates": row["rates"].to_json()} for row in rows],
        "unscored": {
            name: {"replies": k, "reason": why} for name, (k, why) in panel.troubles().items()
        },
        "agreement": {name: found.to_json() for name, found in agreements.items()},
        "out": None if out is None else str(out),
    }
    text = table([*columns, "degenerate"], cells) + panel_text(panel, agreements)
    result(value, as_json, text)
