"""Threads: how many, and work in several of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from stseg3d.machine.threads import MAX_ITEMS, cores, map_in_threads


def test_there_is_a_core_with_and_without_the_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()


@pytest.mark.parametrize("threads", [1, 2, 99])
def test_results_come_in_order_and_few_items_are_held(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    made, done, most = [0], [0], [0]

    def items() -> Iterator[int]:
        for n in range(20):
            made[0] += 1
            most[0] = max(most[0], made[0] - done[0])
            yield n

    def work(n: int) -> int:
        time.sleep(0.002 * (20 - n) / 20)  # later ones end earlier
        return n * n

    for n, found in enumerate(map_in_threads(work, items())):
        assert found == n * n
        done[0] += 1
    assert done[0] == 20
    assert most[0] <= min(threads, MAX_ITEMS) + 1


def test_an_error_is_raised_where_its_result_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    before = threading.active_count()  # other tests' included
    results = map_in_threads(lambda n: 1 // (n - 2), range(5))
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threading.active_count() <= before + 2
