"""What is done in Redis as one step, in Lua: nobody sees half of it, whoever dies meanwhile.

A Task is a hash of its fields, each as JSON, of its counts (`done`, and one for each outcome), and of the `bytes` of
its records, which are counted for all Tasks together too. Of its records there are:

    bits        a bit for each line that has its record
    blocks      a sorted set of the places at which blocks of records begin, in the order in which they were made
    records     hashes of the blocks, by place: `SHARD` places each

and of its targets, as long as they have to be probed:

    chunks      hashes of chunks, by `chain.place`: `CHAINS` chains each
    chains      a hash of the chains that go on, each with `place/length`: the chunk that comes next
    starts      a hash of the chunks that were begun and have not ended, each with how often, and the last one's name
    suspects    a hash of the chunks that workers have ended on, each with the lines that were probed apart at last

Every change of a Task is published on the channel `changes`. Each step may be done twice: an answer that was lost is
asked for again.
"""

from typing import Final

__all__ = ["CHAINS", "SCRIPTS", "SHARD"]

SHARD: Final = 2**16  # places whose blocks are in one hash
CHAINS: Final = 64  # chains whose chunks are in one hash

SCRIPTS: Final = {
    # Keep chunks, and the lengths of their chains, unless the batch was dropped meanwhile.
    "put": """
        local coming, chains = KEYS[1], KEYS[2]
        local id, now, prefix, per = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
        if not redis.call('ZSCORE', coming, id) then return end
        redis.call('ZADD', coming, now, id)
        for at = 5, #ARGV, 3 do
            local chain, place, body = ARGV[at], ARGV[at + 1], ARGV[at + 2]
            redis.call('HSET', prefix .. math.floor(chain / per), chain .. '.' .. place, body)
            redis.call('HSET', chains, chain, '0/' .. (place + 1))
        end""",
    # Drop what there is to do; if a time is given, only of what came or ended before it, and was not admitted.
    "drop": """
        local coming, chains, starts, suspects = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local id, prefix, per, before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
        local since = redis.call('ZSCORE', coming, id)
        if before and (not since or tonumber(since) > before) then return end
        local last = 0
        for _, chain in ipairs(redis.call('HKEYS', chains)) do last = math.max(last, tonumber(chain)) end
        for shard = 0, math.floor(last / per) do redis.call('UNLINK', prefix .. shard) end
        redis.call('UNLINK', chains, starts, suspects)
        redis.call('ZREM', coming, id)""",
    # Make it a Task. Gives 0 if its idempotency key is another's, -1 if its lines were dropped meanwhile.
    "admit": """
        local task, tasks, keys, coming, number = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
        local id, key, changes = ARGV[1], ARGV[2], ARGV[3]
        if redis.call('EXISTS', task) == 1 then return 1 end
        if not redis.call('ZSCORE', coming, id) then return -1 end
        if key ~= '' and redis.call('HSETNX', keys, key, id) == 0 then return 0 end
        for at = 4, #ARGV, 2 do redis.call('HSET', task, ARGV[at], ARGV[at + 1]) end
        redis.call('ZADD', tasks, redis.call('INCR', number), id)
        redis.call('ZREM', coming, id)
        redis.call('PUBLISH', changes, id)
        return 1""",
    # Set fields. Gives why it cannot: there is no such Task, it has ended, or not all of it is done. What was left to
    # do of one that ends is to be dropped, and is swept if it is not.
    "save": """
        local task, coming = KEYS[1], KEYS[2]
        local id, changes, ends, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        if redis.call('EXISTS', task) == 0 then return 'gone' end
        if ends ~= '' then
            if redis.call('HGET', task, 'status') ~= '"running"' then return 'ended' end
            if ends == '"ready"' and redis.call('HGET', task, 'done') ~= redis.call('HGET', task, 'total') then
                return 'unfinished'
            end
            redis.call('ZADD', coming, now, id)
        end
        for at = 5, #ARGV, 2 do redis.call('HSET', task, ARGV[at], ARGV[at + 1]) end
        redis.call('PUBLISH', changes, id)
        return 'saved'""",
    # Keep a block of records, all of lines that have none, and give their counts; else give the lines that have one, or
    # -1 if the Task has ended: then nothing is kept.
    "record": """
        local task, bits, blocks, bytes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local id, changes, prefix, shard, body = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
        if redis.call('HGET', task, 'status') ~= '"running"' then return {-1} end
        local outcomes = cjson.decode(ARGV[6])
        local seen = {}
        for at = 7, #ARGV do
            if redis.call('GETBIT', bits, ARGV[at]) == 1 then seen[#seen + 1] = tonumber(ARGV[at]) end
        end
        if #seen > 0 then return seen end
        for at = 7, #ARGV do redis.call('SETBIT', bits, ARGV[at], 1) end
        local done = redis.call('HINCRBY', task, 'done', #ARGV - 6)
        local place = done - (#ARGV - 6)
        local counts = {}
        for outcome, count in pairs(outcomes) do
            counts[outcome] = redis.call('HINCRBY', task, outcome, count)
        end
        redis.call('HINCRBY', task, 'bytes', #body)
        redis.call('INCRBY', bytes, #body)
        redis.call('ZADD', blocks, place, place)
        redis.call('HSET', prefix .. math.floor(place / shard), place, body)
        local text = cjson.encode(counts)
        redis.call('PUBLISH', changes, id .. text)
        return text""",
    # Count a start of a chunk, once by its name, and give how many there were; 0 if the Task does not run.
    "begin": """
        local task, starts, redelivered = KEYS[1], KEYS[2], KEYS[3]
        local turn, name = ARGV[1], ARGV[2]
        if redis.call('HGET', task, 'status') ~= '"running"' then return 0 end
        local number, last = string.match(redis.call('HGET', starts, turn) or '0', '(%d+)/?(.*)')
        if last == name then return tonumber(number) end
        number = tonumber(number) + 1
        redis.call('HSET', starts, turn, number .. '/' .. name)
        if number > 1 then redis.call('INCR', redelivered) end
        return number""",
    # Take note of the lines of a chunk that are about to be probed apart.
    "suspect": """
        local task, suspects = KEYS[1], KEYS[2]
        if redis.call('HGET', task, 'status') == '"running"' then redis.call('HSET', suspects, ARGV[1], ARGV[2]) end""",
    # Forget a Task. What readers still read goes later.
    "delete": """
        local task, tasks, keys, bytes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local id, key, changes, linger = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        if redis.call('ZREM', tasks, id) == 0 then return 0 end
        if key ~= '' then redis.call('HDEL', keys, key) end
        redis.call('DECRBY', bytes, redis.call('HGET', task, 'bytes') or 0)
        redis.call('UNLINK', task)
        for at = 5, #KEYS do redis.call('EXPIRE', KEYS[at], linger) end
        redis.call('PUBLISH', changes, id)
        return 1""",
    # Give those of these lines that have a record: one command, where one for each would cost its client most.
    "recorded": """
        local seen = {}
        for at = 1, #ARGV do
            if redis.call('GETBIT', KEYS[1], ARGV[at]) == 1 then seen[#seen + 1] = tonumber(ARGV[at]) end
        end
        return seen""",
    # A chunk has ended: give the place of the next one of its chain, -1 if it was the last.
    "advance": """
        local chains, chunks, starts, suspects = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
        local chain, place = ARGV[1], tonumber(ARGV[2])
        for _, key in ipairs({chunks, starts, suspects}) do redis.call('HDEL', key, chain .. '.' .. place) end
        local at, length = string.match(redis.call('HGET', chains, chain) or '', '(%d+)/(%d+)')
        if not at then return -1 end
        if tonumber(at) ~= place then return tonumber(at) end
        if place + 1 >= tonumber(length) then
            redis.call('HDEL', chains, chain)
            return -1
        end
        redis.call('HSET', chains, chain, (place + 1) .. '/' .. length)
        return place + 1""",
}
