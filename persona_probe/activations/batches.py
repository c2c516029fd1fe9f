"""Conversations of different length as batches that hardly pad."""

from collections.abc import Sequence


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices so that neighbours in length share a batch of at most `budget` tokens.

    Batches come longest first, so that what does not fit into memory fails at once. A row longer
    than the budget has a batch of its own.

    Args:
        lengths: tokens per row.
        budget: rows × longest row, padding included.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
