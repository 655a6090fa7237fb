"""Grouping calls: every caller gets its own result or error, and what comes together goes together."""

import asyncio

from verl_fgrpo.core.gather import Gatherer


def test_concurrent_items_go_in_one_call_and_later_ones_in_the_next() -> None:
    calls: list[list[int]] = []

    async def double(items: list[int]) -> list[int]:
        calls.append(items)
        return [2 * item for item in items]

    async def main() -> list[int]:
        gatherer = Gatherer(double, quiet_seconds=0.01)
        first = await asyncio.gather(*[gatherer.submit(i) for i in range(5)])
        return [*first, await gatherer.submit(7)]

    assert asyncio.run(main()) == [0, 2, 4, 6, 8, 14]
    assert calls == [[0, 1, 2, 3, 4], [7]]


def test_an_error_reaches_every_caller_and_the_next_group_works() -> None:
    async def fail_on_zero(items: list[int]) -> list[int]:
        if 0 in items:
            raise ValueError("zero")
        return items

    async def main() -> None:
        gatherer = Gatherer(fail_on_zero, quiet_seconds=0.01)
        results = await asyncio.gather(*[gatherer.submit(i) for i in range(3)], return_exceptions=True)
        assert [str(result) for result in results] == ["zero"] * 3
        assert await gatherer.submit(5) == 5

    asyncio.run(main())
