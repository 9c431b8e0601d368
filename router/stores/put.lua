-- Store.put, as one step of Redis. ARGV: the number of this call, the kind's documents and events (MessagePack), their
-- bodies end to end. Answers 1, or 0 when a document is not the expected one.

local ANSWER, VERSION, DOCUMENTS, STAMPS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local HOUR = 3600
local call, bodies = ARGV[1], ARGV[3]

-- Sent again because its answer got lost: the answer is given again. See commit.lua.
local answered = string.sub(redis.call('GET', ANSWER) or '', 1, #call)
if answered == call then
    return 1
elseif answered > call then
    return 0
end

local put = cmsgpack.unpack(ARGV[2])
if put.expected then
    for _, document in ipairs(put.documents) do
        local kept = redis.call('HGET', DOCUMENTS, document[1])
        local stamp = kept and #kept > 8 and struct.unpack('<d', kept) or 0 -- only a stamp: it was deleted
        if stamp ~= put.expected then
            return 0
        end
    end
end
local newest = redis.call('ZREVRANGE', STAMPS, 0, 0, 'WITHSCORES')
local stamp = (tonumber(newest[2]) or 0) + 1
local at = 1
for _, document in ipairs(put.documents) do -- {key, size of the body}
    local key, size = document[1], document[2]
    redis.call('HSET', DOCUMENTS, key, struct.pack('<d', stamp) .. string.sub(bodies, at, at + size - 1))
    redis.call('ZADD', STAMPS, string.format('%.0f', stamp), key)
    at = at + size
end
for _, event in ipairs(put.events) do -- {key, key of their order, id, size}
    if redis.call('HSETNX', KEYS[event[1]], event[3], string.sub(bodies, at, at + event[4] - 1)) == 1 then
        redis.call('ZADD', KEYS[event[2]], 0, event[3])
    end
    at = at + event[4]
end
redis.call('INCR', VERSION)
redis.call('SET', ANSWER, call, 'EX', HOUR)
return 1
