"""Words that two texts share in a row."""

import re
from functools import cache


@cache
def words(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation."""
    return tuple(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()))


def shared_run(first: str, second: str) -> str:
    """The longest run of words that both texts hold; empty when they share none."""
    a, b = words(first), words(second)
    if not set(a) & set(b):
        return ""
    best, end = 0, 0
    previous = [0] * (len(b) + 1)
    for i, word in enumerate(a, start=1):
        row = [0] * (len(b) + 1)
        for j, other in enumerate(b, start=1):
            if word == other:
                row[j] = previous[j - 1] + 1
                if row[j] > best:
                    best, end = row[j], i
        previous = row
    return " ".join(a[end - best : end])
