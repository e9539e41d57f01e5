"""Keep Tasks in a Redis that all processes of a fleet share.

From outside, import `RedisRegistry` and `FleetSettings`. `crawler.distributed` also uses the records of `chunk`.

    registry        RedisRegistry: the rules of `crawler.registry.Registry` on Redis
    task_cache      this process's copy of the Tasks, kept up to date by published changes
    chunk_store     the lines that are left to probe, in chunks
    chunk           the records of a chunk
    chunking        cuts a list into chunks; sorts a long one with SQLite, in a temporary file
    result_store    the results, in compressed blocks
    connection      connection pool, errors, leader lock
    scripts         the Lua scripts that change several keys in one step
    task_hash       a Task as a Redis hash
    keys            the names of all keys, and what they hold
    settings        FleetSettings: sizes and times
"""
