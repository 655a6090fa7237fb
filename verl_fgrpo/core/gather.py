"""Handle together what concurrent coroutines ask for at the same moment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gatherer(Generic[Item, Result]):
    """Collects what concurrent coroutines submit and handles it together, once nothing new came for `quiet_seconds`.

    `handle` gets the items in order of submission and returns one result for each.
    """

    def __init__(self, handle: Callable[[list[Item]], Awaitable[list[Result]]], quiet_seconds: float) -> None:
        self._handle = handle
        self._quiet_seconds = quiet_seconds
        self._items: list[tuple[Item, asyncio.Future[Result]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """Hand in one item; returns its result, or raises what handling its group raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._items.append((item, future))
        if len(self._items) == 1:
            task = asyncio.create_task(self._flush_when_quiet())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _flush_when_quiet(self) -> None:
        count = 0
        while count != len(self._items):
            count = len(self._items)
            await asyncio.sleep(self._quiet_seconds)
        group, self._items = self._items, []
        try:
            results = await self._handle([item for item, _ in group])
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:  # every waiting coroutine must learn of it, else verl waits forever
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
