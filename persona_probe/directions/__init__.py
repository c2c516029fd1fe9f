"""Numbers to a direction: find it, doubt it, compare it, ship it.

What a direction is, how a set of them lies on disk and what every finder shares stands here. Then,
each importing only those before it: `finders/` (one file each), `checks/` (is it real?),
`families/` (the five ways to ask for one persona, shared and own parts) and `before_after/` (what
finetuning did).
"""
