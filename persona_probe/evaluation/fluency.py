"""Has free text fallen apart? Both ways: the same words over and over, or words without a sentence.

Rough on purpose: a reply is called degenerate only when it is far from ordinary prose.
"""

import re

from persona_probe.personas.judge_rules import Fluency

# The commonest words of English; about half of all running words in prose are among them.
COMMONEST = """
the of and to a in is it you that for on with as are be this have from or by not but at your
if can they will an we i so do what there their when which who my me he she his her was were
would could should up out about more no one all then them than how into just also some any may
don't it's
"""
FUNCTION_WORDS = frozenset(COMMONEST.split())


def broken(text: str, limits: Fluency) -> str | None:
    """What is wrong with a text, with the number; `None` when it reads like prose."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", text.lower())
    if not words:
        return "no words"
    if len(words) < limits.min_words:
        return None
    triples = list(zip(words, words[1:], words[2:], strict=False))
    distinct = len(set(triples)) / len(triples)
    if distinct < limits.distinct_triples:
        return f"a loop: only {distinct:.2f} of its word triples are distinct"
    common = sum(word.replace("’", "'") in FUNCTION_WORDS for word in words) / len(words)
    if common < limits.function_words:
        return f"word salad: only {common:.2f} of its words are common ones"
    return None
