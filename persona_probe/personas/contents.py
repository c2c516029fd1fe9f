"""What a pack holds, counted."""

from collections import Counter
from typing import Any

from persona_probe.personas.diagnostic import SCENARIO
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import KINDS

Row = dict[str, Any]


def contents(pack: Pack) -> Row:
    """Names, hashes and counts, for people and for machines."""
    prompts: Counter[tuple[str, str]] = Counter(
        (prompt.category, prompt.kind) for prompt in pack.suite.prompts
    )
    items = Counter((i.dimension, i.format == SCENARIO, i.key) for i in pack.diagnostic.items)
    return {
        "name": pack.name,
        "hash": pack.hash,
        "signatures_hash": pack.signatures_hash,
        "personas": [persona.name for persona in pack.personas],
        "foils": [persona.name for persona in pack.foils],
        "questions": len(pack.questions),
        "foil_items": len(pack.diagnostic.foils),
        "paraphrases": len(pack.robustness.paraphrases),
        "lead_ins": len(pack.robustness.lead_ins),
        "attacks": {attack.name: len(attack.wrappers) for attack in pack.robustness.attacks},
        "multiple_choice": len(pack.multiple_choice),
        "categories": [
            {
                "category": category,
                "tier": tier,
                "families": len({p.family for p in pack.suite.of(category=category).prompts}),
            }
            | {kind: prompts[category, kind] for kind in KINDS}
            for category, tier in pack.suite.categories.items()
        ],
        "dimensions": [
            {
                "dimension": dimension,
                "statements +": items[dimension, False, 1],
                "statements -": items[dimension, False, -1],
                "scenarios": items[dimension, True, 1] + items[dimension, True, -1],
            }
            for dimension in pack.diagnostic.dimensions
        ],
    }
