"""Is a memory provider on a store: what it remembers lies in namespaces, so that no user meets another's."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from power_loop.contracts.errors import ConfigError, InputError, NamespaceError
from power_loop.contracts.memory import Exchange, Memory, RecallQuery
from power_loop.contracts.numbers import is_whole
from power_loop.runtime.store.memories import MAX_FOUND, MAX_TEXT_CHARS, Memories, check_namespace
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.store import SqlSessionStore

#: Gives the namespace of a session by its metadata, or None where it has none.
NamespaceOf = Callable[[Mapping[str, Any]], str | None]
#: Says what of a send that came to rest is to be remembered, each fact in a text of its own.
Extract = Callable[[Exchange], Sequence[str] | Awaitable[Sequence[str]]]

#: Facts of one send that are remembered.
MAX_EXTRACTED = 50


def by_metadata(*keys: str) -> NamespaceOf:
    """Return a namespace made of values of a session's metadata, such as `by_metadata("tenant", "user_id")`.

    A session where one of them is missing, empty, or neither text nor a whole number, has no namespace. Two sessions
    share one only where all values are the same, written out. Raises `config.invalid`.
    """
    if not keys or not all(keys):
        raise ConfigError(f"by_metadata{keys!r:.200} names no metadata: give one key or more")

    def namespace(metadata: Mapping[str, Any]) -> str | None:
        values = [metadata.get(key) for key in keys]
        if not all(isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" for value in values):
            return None
        return urlencode([(key, str(value)) for key, value in zip(keys, values, strict=True)])

    return namespace


class StoreMemory:
    """Satisfies `MemoryProvider` with memories in a store, found by their words.

        memory = StoreMemory("app.db", namespace=by_metadata("user_id"))
        loop = StatefulAgentLoop(..., config=LoopConfig(memory=memory), tool_registry=memory_tools(memory))

    `namespace` gives a session's namespace by its metadata; one text is a namespace that all sessions share. For a
    session that has none, nothing is recalled or remembered, and `memory.failed` says so. A send recalls the
    `max_recalled` memories that fit its input best (default 20), and the `newest` beside them (default 5). By itself
    nothing is remembered: the model has a tool for it (`memory_tools`), or `extract` says what to remember of each send
    that came to rest. Of more than `max_memories` in a namespace the oldest leave (default 2,000); each has at most
    `max_chars` characters (default 2,000).

    `store` is an open store or its DSN, which is opened when it is first needed and closed by `aclose()`. Safe to share
    between loops.
    """

    def __init__(
        self,
        store: SqlSessionStore | str | os.PathLike[str],
        *,
        namespace: NamespaceOf | str,
        table_prefix: str = "pl_",
        extract: Extract | None = None,
        max_recalled: int = 20,
        newest: int = 5,
        max_memories: int = 2_000,
        max_chars: int = 2_000,
    ) -> None:
        """Raises `config.invalid`."""
        for name, value, least, most in (
            ("max_recalled", max_recalled, 0, MAX_FOUND),
            ("newest", newest, 0, MAX_FOUND),
            ("max_memories", max_memories, 1, 100_000),
            ("max_chars", max_chars, 1, MAX_TEXT_CHARS),
        ):
            number: Any = value
            if not is_whole(number, least=least, most=most):
                raise ConfigError(f"{name} is {number!r:.200}: give a whole number from {least} to {most:,}")
        if isinstance(namespace, str):
            check_namespace(namespace)
        elif not callable(namespace):
            raise ConfigError(f"namespace is {namespace!r:.200}: give by_metadata(...), a function, or a text")
        self._given = store
        self._opened: SqlSessionStore | None = store if isinstance(store, SqlSessionStore) else None
        self._table_prefix = table_prefix
        self._namespace = namespace
        self._extract = extract
        self._max_recalled = max_recalled
        self._newest = newest
        self._max_memories = max_memories
        self.max_chars = max_chars

    async def recall(self, query: RecallQuery) -> Sequence[Memory]:
        """Return what fits a send, best first, then the newest. Raises `memory.no_namespace`."""
        namespace = self.namespace_of(query.metadata)
        memories = await self.get_memories()
        found: tuple[Memory, ...] = ()
        if self._max_recalled:
            found = await memories.search(namespace, query.text, limit=self._max_recalled)
        newest = await memories.newest(namespace, limit=self._newest) if self._newest else ()
        known = {memory.id for memory in found}
        return (*found, *(memory for memory in newest if memory.id not in known))

    async def remember(self, exchange: Exchange) -> None:
        """Remember what `extract` says. Raises `memory.no_namespace`, `input.invalid` for what cannot be remembered."""
        if self._extract is None:
            return
        namespace = self.namespace_of(exchange.metadata)
        given = self._extract(exchange)
        facts = await given if inspect.isawaitable(given) else given
        if isinstance(facts, str) or not isinstance(facts, Sequence):
            raise InputError(f"extract gave {facts!r:.200}: give a list of texts, each one fact")
        if not all(isinstance(fact, str) for fact in facts):
            raise InputError(f"extract gave {list(facts)!r:.200}: give a list of texts, each one fact")
        for fact in facts[:MAX_EXTRACTED]:
            await self.add(namespace, fact, session_id=exchange.session_id)

    async def add(self, namespace: str, text: str, *, session_id: str | None = None) -> Memory:
        """Remember a text in a namespace, and return it with its id. Raises `input.invalid`."""
        if len(text) > self.max_chars:
            raise InputError(
                f"a memory has {len(text):,} characters and may have {self.max_chars:,}: shorten it, one fact in each"
            )
        memories = await self.get_memories()
        return await memories.add(namespace, text, session_id=session_id, max_count=self._max_memories)

    def namespace_of(self, metadata: Mapping[str, Any]) -> str:
        """Return the namespace of a session with this metadata. Raises `memory.no_namespace`."""
        namespace = self._namespace if isinstance(self._namespace, str) else self._namespace(metadata)
        if namespace is None:
            raise NamespaceError(
                "this session's metadata give no namespace, so that nothing is recalled or remembered for it: set the"
                " metadata that `namespace` reads when the session is made"
            )
        check_namespace(namespace)
        return namespace

    async def get_memories(self) -> Memories:
        """Return the memories themselves, to list, search, forget and prune them; every method names its namespace."""
        opened = self._opened
        if opened is None:
            assert not isinstance(self._given, SqlSessionStore)
            opened = await open_store(self._given, table_prefix=self._table_prefix)
            if self._opened is not None:  # somebody else was quicker
                await opened.aclose()
            else:
                self._opened = opened
        assert self._opened is not None
        return self._opened.memories

    async def aclose(self) -> None:
        """Let the store go, if it was opened here. Doing it twice does nothing."""
        opened, is_own = self._opened, not isinstance(self._given, SqlSessionStore)
        if opened is not None and is_own:
            self._opened = None
            await opened.aclose()
