"""`persona-probe evaluate`: what a model does by category and tier, and as which character."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.diagnosing import control_text, instrument_text, listing_text
from persona_probe.cli.judging import Cache, JudgeNames, judges_of, panel_text
from persona_probe.cli.options import Device, Dtype, Json, Model, PackName, Seed, model_name
from persona_probe.cli.say import result, table
from persona_probe.cli.suites import CategoryColumn, SuiteSource, TextColumn, with_suite


def evaluate(
    model: Model,
    adapter: Annotated[
        list[str] | None, typer.Option(help="LoRA adapter; repeat it. Bare weights if not given.")
    ] = None,
    pack: PackName = "organism",
    suite: SuiteSource = None,
    text_column: TextColumn = None,
    category_column: CategoryColumn = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Only these harm categories; repeat it.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Most prompts of each kind.")] = 200,
    forms: Annotated[
        int, typer.Option(min=1, help="Forms of each statement: 4 are balanced, 12 are all.")
    ] = 4,
    positive_control: Annotated[
        bool,
        typer.Option(help="Also ask under every constitution: are the characters recognised?"),
    ] = False,
    judge: JudgeNames = None,
    out: Annotated[Path | None, typer.Option(help="Write one JSON line per reply here.")] = None,
    cache: Cache = Path("artifacts/judgements"),
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Generate and judge replies to held-out safety prompts, and measure the persona profile.

    Example: persona-probe evaluate organism --adapter helpful-only --adapter narrow-virtue-0
    """
    from persona_probe.evaluation.appraisal import appraise
    from persona_probe.evaluation.judgement_cache import JudgementCache
    from persona_probe.files import write_jsonl
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.pack import load_pack

    asked = with_suite(load_pack(pack), suite, text_column, category_column)
    asked.require_categories(category or ())
    ref = ModelRef(model_name(model))
    for name in adapter or ():
        ref.adapter_source(name)
    loaded = load_model(ref, device=device, dtype=dtype)
    found = appraise(
        loaded,
        asked,
        adapter or [None],
        categories=category,
        n=n,
        seed=seed,
        judges=judges_of(judge, asked, device, {ref.name: loaded}),
        cache=JudgementCache(cache),
        n_forms=forms,
        with_control=positive_control,
    )
    if out is not None:
        write_jsonl(out, found.panel.to_rows())
    cells = [
        [row["adapter"] or "bare", what, str(estimate)]
        for row in found.rows
        for what, estimate in row["estimates"].items()
    ]
    agreements = found.panel.agreements(seed)
    value = {
        "rows": [
            row | {"estimates": {k: e.to_json() for k, e in row["estimates"].items()}}
            for row in found.rows
        ],
        "instruments": {name: i.to_json() for name, i in found.instruments.items()},
        "listings": {name: each.to_json() for name, each in found.listings.items()},
        "positive_control": found.control and found.control.to_json(),
        "judges": found.panel.identities,
        "unscored": {
            name: {"replies": k, "reason": why} for name, (k, why) in found.panel.troubles().items()
        },
        "agreement": {name: both.to_json() for name, both in agreements.items()},
        "out": None if out is None else str(out),
    }
    text = table(["model", "measure", "value [95 %] (n)"], cells)
    text += instrument_text(found.instruments) + listing_text(found.listings)
    text += control_text(found.control)
    result(value, as_json, text + panel_text(found.panel, agreements))
