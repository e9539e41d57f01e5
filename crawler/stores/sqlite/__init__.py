"""Keep Tasks in a SQLite file that one process uses at a time.

From outside, import `SqliteRegistry`. `stores.redis.chunking` and `stores.dedupe` sort and index on disk with
`database`, `connection` and `ingest`.

    registry         SqliteRegistry: the rules of `crawler.registry.Registry` on a file
    ingest           takes in the lines of a Task: duplicates and probing order
    sweeper          deletes the rows of deleted Tasks in the background
    recent_results   results of small Tasks in memory
    task_queries     SQL of Tasks and notes
    queries          SQL of lines and results
    database         a connection on a thread of its own
    connection       opens, migrates and writes a file
    file_lock        keeps other processes from the file
    backup           copies a file in use, and checks whether a file is sound
    log_check        refuses a log that belongs to another file
    file_guard       notices that the file was removed or replaced
    reserve          space that a full disk still has for deletions
    schema           the tables, as migrations
"""
