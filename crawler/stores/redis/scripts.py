"""The steps that Redis runs as one, in Lua: other clients see all of a step or nothing. `keys` describes the data.

Each script can be run twice with the same arguments, because redis-py repeats a command whose answer was lost.
"""

from typing import Final

__all__ = ["SCRIPTS"]

SCRIPTS: Final = {
    # Store chunks and the lengths of their sequences, unless the batch has been dropped meanwhile.
    "add_chunks": """
        local coming, sequences = KEYS[1], KEYS[2]
        local id, now, prefix, per_hash = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
        if not redis.call('ZSCORE', coming, id) then return end
        redis.call('ZADD', coming, now, id)
        for i = 5, #ARGV, 3 do
            local sequence, index, body = ARGV[i], ARGV[i + 1], ARGV[i + 2]
            redis.call('HSET', prefix .. math.floor(sequence / per_hash), sequence .. '.' .. index, body)
            redis.call('HSET', sequences, sequence, '0/' .. (index + 1))
        end""",
    # Drop the chunks of a Task or batch. With a time: only if the mark "coming" is older than that time. Without a
    # readable hash of sequences, there are at most as many as the Task has lines.
    "drop_chunks": """
        local coming, sequences, starts, isolated, task = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
        local id, prefix, per_hash, before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
        local since = redis.call('ZSCORE', coming, id)
        if before and (not since or tonumber(since) > before) then return end
        local last, stored = 0, redis.pcall('HKEYS', sequences)
        if stored.err then last = tonumber(redis.pcall('HGET', task, 'total')) or 0 end
        for _, sequence in ipairs(stored) do last = math.max(last, tonumber(sequence)) end
        for number = 0, math.floor(last / per_hash) do redis.call('UNLINK', prefix .. number) end
        redis.call('UNLINK', sequences, starts, isolated)
        redis.call('ZREM', coming, id)""",
    # Make a batch a Task. Returns 1, 0 if another Task has its idempotency key, -1 if its chunks have been dropped, -2
    # if the owner has too many running Tasks, -3 if there are too many of all owners. A Task that an older version has
    # ended is still in the hash `running`, so each is looked at before it is counted; so is one of a wrong type.
    "admit": """
        local task, tasks, keys, coming, number, running = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
        local id, key, changes, prefix, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
        local most_of_owner, most = tonumber(ARGV[6]), tonumber(ARGV[7])
        if redis.call('EXISTS', task) == 1 then return 1 end
        if not redis.call('ZSCORE', coming, id) then return -1 end
        if key ~= '' and redis.call('HEXISTS', keys, key) == 1 then return 0 end
        local owners, own, all = redis.call('HGETALL', running), 0, 0
        for i = 1, #owners, 2 do
            if redis.pcall('HGET', prefix .. owners[i], 'status') == '"running"' then
                all = all + 1
                if owners[i + 1] == owner then own = own + 1 end
            else
                redis.call('HDEL', running, owners[i])
            end
        end
        if owner ~= '' and own >= most_of_owner then return -2 end
        if all >= most then return -3 end
        if key ~= '' then redis.call('HSET', keys, key, id) end
        redis.call('HSET', running, id, owner)
        for i = 8, #ARGV, 2 do redis.call('HSET', task, ARGV[i], ARGV[i + 1]) end
        redis.call('ZADD', tasks, redis.call('INCR', number), id)
        redis.call('ZREM', coming, id)
        redis.call('PUBLISH', changes, id)
        return 1""",
    # Set fields of a Task. Returns 'saved', or the reason why not: 'gone', 'ended', or 'unfinished' if it would become
    # ready and lines have no result. A Task that ends is marked as coming: its chunks are dropped even after a crash.
    "save": """
        local task, coming, running = KEYS[1], KEYS[2], KEYS[3]
        local id, changes, new_status, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        if redis.call('EXISTS', task) == 0 then return 'gone' end
        if new_status ~= '' then
            if redis.call('HGET', task, 'status') ~= '"running"' then return 'ended' end
            if new_status == '"ready"' and redis.call('HGET', task, 'done') ~= redis.call('HGET', task, 'total') then
                return 'unfinished'
            end
            redis.call('ZADD', coming, now, id)
            redis.call('HDEL', running, id)
        end
        for i = 5, #ARGV, 2 do redis.call('HSET', task, ARGV[i], ARGV[i + 1]) end
        redis.call('PUBLISH', changes, id)
        return 'saved'""",
    # Store a block of results and return the counts. Stores nothing, and returns the lines that have a result already
    # if there are any, or {-1} if the Task does not run. All keys are read first, so that one of a wrong type fails
    # before the first write.
    "record": """
        local task, bits, blocks, bytes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local id, changes, prefix, per_hash, body = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
        if redis.call('HGET', task, 'status') ~= '"running"' then return {-1} end
        local offset = tonumber(redis.call('HGET', task, 'done'))
        local records = prefix .. math.floor(offset / per_hash)
        redis.call('ZCARD', blocks)
        redis.call('HLEN', records)
        redis.call('GET', bytes)
        local outcomes = cjson.decode(ARGV[6])
        local recorded = {}
        for i = 7, #ARGV do
            if redis.call('GETBIT', bits, ARGV[i]) == 1 then recorded[#recorded + 1] = tonumber(ARGV[i]) end
        end
        if #recorded > 0 then return recorded end
        for i = 7, #ARGV do redis.call('SETBIT', bits, ARGV[i], 1) end
        redis.call('HINCRBY', task, 'done', #ARGV - 6)
        local counts = {}
        for outcome, count in pairs(outcomes) do
            counts[outcome] = redis.call('HINCRBY', task, outcome, count)
        end
        redis.call('HINCRBY', task, 'bytes', #body)
        redis.call('INCRBY', bytes, #body)
        redis.call('ZADD', blocks, offset, offset)
        redis.call('HSET', records, offset, body)
        local text = cjson.encode(counts)
        redis.call('PUBLISH', changes, id .. text)
        return text""",
    # Count a start of a chunk and return the number of starts. A start is counted once by its name. Returns 0 if the
    # Task does not run.
    "start_chunk": """
        local task, starts, redelivered = KEYS[1], KEYS[2], KEYS[3]
        local chunk, name = ARGV[1], ARGV[2]
        if redis.call('HGET', task, 'status') ~= '"running"' then return 0 end
        local number, last = string.match(redis.call('HGET', starts, chunk) or '0', '(%d+)/?(.*)')
        if last == name then return tonumber(number) end
        number = tonumber(number) + 1
        redis.call('HSET', starts, chunk, number .. '/' .. name)
        if number > 1 then redis.call('INCR', redelivered) end
        return number""",
    # Store which lines of a chunk are about to be probed in isolation.
    "isolate": """
        local task, isolated = KEYS[1], KEYS[2]
        if redis.call('HGET', task, 'status') == '"running"' then redis.call('HSET', isolated, ARGV[1], ARGV[2]) end""",
    # Complete a chunk: return the index of the next one of its sequence, -1 if it was the last.
    "complete_chunk": """
        local sequences, chunks, starts, isolated = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local sequence, index = ARGV[1], tonumber(ARGV[2])
        for _, key in ipairs({chunks, starts, isolated}) do redis.call('HDEL', key, sequence .. '.' .. index) end
        local current, length = string.match(redis.call('HGET', sequences, sequence) or '', '(%d+)/(%d+)')
        if not current then return -1 end
        if tonumber(current) ~= index then return tonumber(current) end
        if index + 1 >= tonumber(length) then
            redis.call('HDEL', sequences, sequence)
            return -1
        end
        redis.call('HSET', sequences, sequence, (index + 1) .. '/' .. length)
        return index + 1""",
    # Return those of these lines that have a result. One script, because one GETBIT each would cost the client more.
    "recorded": """
        local recorded = {}
        for i = 1, #ARGV do
            if redis.call('GETBIT', KEYS[1], ARGV[i]) == 1 then recorded[#recorded + 1] = tonumber(ARGV[i]) end
        end
        return recorded""",
    # Delete a Task. The other keys expire later, for clients that are reading the results now.
    "delete": """
        local task, tasks, keys, bytes, running = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
        local id, key, changes, expire_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        redis.call('HDEL', running, id)
        if redis.call('ZREM', tasks, id) == 0 then return 0 end
        if key ~= '' then redis.call('HDEL', keys, key) end
        redis.call('DECRBY', bytes, redis.call('HGET', task, 'bytes') or 0)
        redis.call('UNLINK', task)
        for i = 6, #KEYS do redis.call('PEXPIRE', KEYS[i], expire_ms) end
        redis.call('PUBLISH', changes, id)
        return 1""",
    # Return the first of a Task's keys that has a wrong type, with its type and the right one; nothing if none has.
    "find_wrong_type": """
        local chunks, records, chunks_per_hash, offsets_per_hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        local function is_wrong(key, wanted)
            local found = redis.call('TYPE', key).ok
            return found ~= wanted and found ~= 'none' and {key, found, wanted}
        end
        for i, key in ipairs(KEYS) do
            local wrong = is_wrong(key, ARGV[4 + i])
            if wrong then return wrong end
        end
        local total = tonumber(redis.call('HGET', KEYS[1], 'total') or 0)
        for _, hashes in ipairs({{records, offsets_per_hash}, {chunks, chunks_per_hash}}) do
            for number = 0, math.floor(total / hashes[2]) do
                local wrong = is_wrong(hashes[1] .. number, 'hash')
                if wrong then return wrong end
            end
        end""",
}
