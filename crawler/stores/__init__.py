"""Keep Tasks, their lines and their results: the implementations of `crawler.registry.Registry`.

From outside, import `MemoryRegistry`, `SqliteRegistry`, `RedisRegistry` and `Deduplicator`. SQLite and Redis are
imported only when they are chosen.

    redis/      RedisRegistry: Tasks that the processes of a fleet share
    sqlite/     SqliteRegistry: Tasks in a file
    memory      MemoryRegistry: Tasks in a dict; the reference
    dedupe      Deduplicator: equal lines of a stream, for the library, which has no registry
    ordering    which lines are equal, and the probing order; used by all of the above
"""
