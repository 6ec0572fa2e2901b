"""Which tests run first, and which stay on one worker of pytest-xdist.

A file's tests stay together, so that its fixtures are made once. What takes long begins first: a
run would else end with one worker on a long test and the others idle. The tests on a cluster are
one group, for there is one cluster; they wait for it more than they compute, which is why there
may be a worker more than there are cores.
"""

from __future__ import annotations

import pytest

_CLUSTER = "tests/cluster/"


def long_ones_first(items: list[pytest.Item]) -> None:
    """Sort in place: cluster, end to end, files with slow tests, all others; as found within."""
    slow = {group_of(item.nodeid) for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        if group == _CLUSTER:
            return 0
        if item.get_closest_marker("e2e"):
            return 1
        return 2 if group in slow else 3

    items.sort(key=rank)


def group_of(nodeid: str) -> str:
    """What stays on one worker: a file, and all of the cluster's."""
    return _CLUSTER if nodeid.startswith(_CLUSTER) else nodeid.partition("::")[0]


def files_in_turn(config: pytest.Config, log: object) -> object:
    """A scheduler of pytest-xdist that hands out groups in the order in which tests are sorted."""
    from xdist.scheduler import LoadScopeScheduling

    class FilesInTurn(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # by how many tests they have
    return FilesInTurn(config, log)
