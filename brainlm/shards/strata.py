"""Stratified splits: every split gets its share of every stratum.

A stratum is a combination of values (site A, sex F, age in the second quarter). Numeric labels
are cut at quantiles; a missing value is a value of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from .subjects import Value

Stratum = tuple[str | float | None, ...]
Group = tuple[str, ...]

#: Lacking less than this share of a subject is lacking nothing: rounding.
_NOTHING = 1e-9


def bin_edges(values: Iterable[Value], bins: int) -> list[float] | None:
    """Where a numeric label is cut into `bins` parts of equal number; None: it is text.

    A label of at most `bins` different numbers is cut between them: sex 0 and 1 stay apart.
    """
    numbers = sorted(value for value in values if isinstance(value, int | float))
    if not numbers:
        return None
    distinct = sorted(set(numbers))
    if len(distinct) <= bins:
        return [(low + high) / 2 for low, high in pairwise(distinct)]
    return sorted({_quantile(numbers, part / bins) for part in range(1, bins)})


def _quantile(numbers: Sequence[float], share: float) -> float:
    """A quantile of sorted `numbers`, interpolated linearly."""
    place = share * (len(numbers) - 1)
    low = int(place)
    high = min(low + 1, len(numbers) - 1)
    return numbers[low] + (place - low) * (numbers[high] - numbers[low])


def strata_of(
    labels: Mapping[str, Mapping[str, Value]], edges: Mapping[str, Sequence[float]]
) -> dict[str, Stratum]:
    """Subject -> stratum; `labels` maps a label's name to each subject's value."""
    strata: dict[str, list[Value]] = defaultdict(list)
    for name, values in labels.items():
        for subject, value in values.items():
            if isinstance(value, int | float) and name in edges:
                value = bisect_right(edges[name], value)
            strata[subject].append(value)
    return {subject: tuple(parts) for subject, parts in strata.items()}


def fill_strata(
    sizes: Mapping[Group, int],
    strata: Mapping[Group, Stratum],
    fixed: Mapping[Group, str],
    shares: Mapping[str, float],
    rank: Callable[[Group], float],
) -> dict[Group, str]:
    """Group -> split: those in `fixed` stay, the others fill what their stratum lacks.

    A group is a family or a single subject, `sizes` are its subjects. Within a stratum groups
    go by `rank` (a hash) to the split that lacks most, as long as one lacks the whole group.
    What is left of each stratum (less than one group for each split) goes to the split that lacks
    most in the whole cohort, among those that lack anything in the stratum: strata too small
    to be divided would else all end up in train.
    """
    total = sum(sizes.values())
    lacking = {split: total * share for split, share in shares.items()}
    members: dict[Stratum, list[Group]] = defaultdict(list)
    for group in sorted(sizes, key=lambda one: (rank(one), one)):
        members[strata[group]].append(group)
    assigned: dict[Group, str] = {}
    left: list[tuple[Group, dict[str, float]]] = []
    for stratum in sorted(members, key=repr):
        groups = members[stratum]
        here = _lacking_here(groups, sizes, fixed, shares)
        for group in groups:
            split = fixed.get(group) or max(here, key=here.__getitem__)
            if group not in fixed:
                if here[split] < sizes[group] - _NOTHING:
                    left.append((group, here))
                    continue
                here[split] -= sizes[group]
            assigned[group] = split
            lacking[split] -= sizes[group]
    for group, here in left:
        open_to = [split for split in shares if here[split] > _NOTHING]
        split = max(open_to, key=lacking.__getitem__)
        assigned[group] = split
        here[split] -= sizes[group]
        lacking[split] -= sizes[group]
    return assigned


def _lacking_here(
    groups: Sequence[Group],
    sizes: Mapping[Group, int],
    fixed: Mapping[Group, str],
    shares: Mapping[str, float],
) -> dict[str, float]:
    """Split -> subjects that it lacks in this stratum, given who is fixed."""
    there: Counter[str] = Counter()
    for group in groups:
        if group in fixed:
            there[fixed[group]] += sizes[group]
    total = sum(sizes[group] for group in groups)
    return {split: total * share - there[split] for split, share in shares.items()}
