"""Sequences of different length as batches under a budget of tokens."""

from collections.abc import Sequence


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices so that neighbours in length share a batch of at most `budget` tokens.

    Batches come longest first, so that what does not fit into memory fails at once. A row longer
    than the budget has a batch of its own.

    Args:
        lengths: tokens per row.
        budget: rows × longest row, padding included.
    """
    return _grouped(lengths, budget, padded=True)


def end_to_end(
    lengths: Sequence[int], budget: int, alone_above: int | None = None
) -> list[list[int]]:
    """Group indices into batches of at most `budget` tokens in all, without padding.

    As `by_length`; rows of equal length are neighbours, so that they can share attention.

    Args:
        lengths: tokens per row.
        budget: tokens of a batch.
        alone_above: a row longer than this has a batch of its own, where the model's position
            encoding depends on the longest row.
    """
    most = max(lengths, default=0) if alone_above is None else alone_above
    alone = [[i] for i, length in enumerate(lengths) if length > most]
    rest = [i for i, length in enumerate(lengths) if length <= most]
    batches = _grouped([lengths[i] for i in rest], budget, padded=False)
    return alone + [[rest[i] for i in batch] for batch in batches]


def _grouped(lengths: Sequence[int], budget: int, padded: bool) -> list[list[int]]:
    batches: list[list[int]] = []
    filled = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # Padded, every row is as long as the first one of its batch.
        longest = lengths[batches[-1][0]] if batches and padded else lengths[index]
        if batches and filled + longest <= budget:
            batches[-1].append(index)
            filled += longest
        else:
            batches.append([index])
            filled = lengths[index]
    return batches
