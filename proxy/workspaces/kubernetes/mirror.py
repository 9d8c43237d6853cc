"""A mirror of the cluster's objects in memory, kept current by watches, so that reading costs no request.

One watch per kind serves every workspace of this process, however many start at once. Objects are cut down
to the fields that are read.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from proxy.aio import TaskOwner
from proxy.workspaces.kubernetes.api import Api, Query
from proxy.workspaces.kubernetes.objects import Object, name_of, uid_of
from proxy.workspaces.kubernetes.watch import Changed, Current, Gone, Listed, Lost, News, follow


class Wakeups:
    """Events that wake the tasks which wait for a change of a name."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def wake(self, name: str) -> None:
        """Wake the tasks that wait for a change of `name`."""
        for event in self._waiting.get(name, ()):
            event.set()

    def wake_all(self) -> None:
        """Wake every waiting task."""
        for name in tuple(self._waiting):
            self.wake(name)

    @contextmanager
    def heard(self, names: Iterable[str]) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something happens to one of `names`; the reader clears it."""
        event = asyncio.Event()
        names = tuple(names)
        for name in names:
            self._waiting[name].add(event)
        try:
            yield event
        finally:
            for name in names:
                self._waiting[name].discard(event)
                if not self._waiting[name]:
                    del self._waiting[name]


class Mirror:
    """The objects of one query, by their own name and by that of the object they are about."""

    def __init__(
        self,
        api: Api,
        query: Query,
        wakeups: Wakeups,
        *,
        wait_max_s: float,
        keep: Callable[[Object], Object],
        about: Callable[[Object], str] = name_of,
        most: int = 1_000_000,
    ) -> None:
        """Mirror `query`; `keep` cuts an object down, `about` returns the name to wake when it changes.

        Of more than `most` objects, those that changed last are kept.
        """
        self._api = api
        self._query = query
        self._wakeups = wakeups
        self._wait_max_s = wait_max_s
        self._keep = keep
        self._about_of = about
        self._most = most
        self._items: dict[str, Object] = {}
        self._about: defaultdict[str, set[str]] = defaultdict(set)
        self._owner = TaskOwner(f"mirror {query.kind.plural}")
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._current = False

    @property
    def is_current(self) -> bool:
        """Return whether a watch is connected; otherwise the objects may be old."""
        return self._current

    def start(self) -> None:
        """Begin to watch, when that was not done before."""
        if self._task is None:
            self._task = self._owner.spawn(self._run(), name=self._query.namespace)

    async def listed(self, timeout_s: float) -> bool:
        """Wait for the first list; False when it did not come in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._first.wait()
        return self._first.is_set()

    def close(self) -> None:
        """Watch no more, and forget."""
        self._task = None  # before anything is waited for: `start` may be called meanwhile
        self._current = False
        self._first.clear()
        self._items.clear()
        self._about.clear()
        self._owner.cancel()

    def get(self, name: str) -> Object | None:
        """Return the object of that name."""
        return self._items.get(name)

    def about(self, name: str) -> list[Object]:
        """Give the objects that are about the one called `name`."""
        return [self._items[one] for one in self._about.get(name, ())]

    def all(self) -> list[Object]:
        """Return every object."""
        return list(self._items.values())

    def learn(self, item: Object) -> None:
        """Take the answer of a write, so that the writer does not read the former state."""
        known = self._items.get(name_of(item))
        if known is not None and uid_of(known) == uid_of(item) and _version(known) > _version(item):
            return
        self._put(item)
        self._wakeups.wake(self._about_of(item))

    def forget(self, item: Object) -> None:
        """Take note that an object is gone, when it is still that one."""
        known = self._items.get(name_of(item))
        if known is not None and uid_of(known) == uid_of(item):
            self._drop(name_of(item))
            self._wakeups.wake(self._about_of(item))

    async def _run(self) -> None:
        me = asyncio.current_task()
        async for news in follow(self._api, self._query, wait_max_s=self._wait_max_s):
            if self._task is not me:
                return  # it was closed, and perhaps begun anew, while this came in
            self._apply(news)

    def _apply(self, news: News) -> None:
        match news:
            case Listed(items, version):
                self._replace(items, _number(version))
            case Changed(item):
                self.learn(item)
            case Gone(item):
                self.forget(item)
            case Lost():
                self._current = False
                return
            case Current():
                pass
        self._current = True

    def _replace(self, items: Iterable[Object], version: int) -> None:
        """Replace all objects by those of a list, except newer ones."""
        newer = [item for item in self._items.values() if _version(item) > version]
        self._items.clear()
        self._about.clear()
        for item in (*items, *newer):
            self._put(item)
        self._first.set()
        self._wakeups.wake_all()

    def _put(self, item: Object) -> None:
        name = name_of(item)
        self._items.pop(name, None)  # so that the order is that of the last change
        self._items[name] = self._keep(item)
        self._about[self._about_of(item)].add(name)
        if len(self._items) > self._most:
            self._drop(next(iter(self._items)))

    def _drop(self, name: str) -> None:
        about = self._about_of(self._items.pop(name))
        self._about[about].discard(name)
        if not self._about[about]:
            del self._about[about]


def _version(item: Object) -> int:
    return _number(str(item["metadata"].get("resourceVersion", "")))


def _number(version: str) -> int:
    """Return a version as a number, as every known server writes it; 0, never newer, for any other."""
    return int(version) if version.isdecimal() else 0
