-- Store.commit, as one step of Redis: all is decided before the first write, as Redis undoes nothing.
--
-- ARGV: the number of this call, the batch (MessagePack), and the values that are only passed on, end to end.
-- Redis's MessagePack knows no bytes, so these travel apart, and the batch says how long each is.
-- An answer is {"claimed", "101"} for three credits, or what stands against it: {"unknown", id},
-- {"wide", key, field, width there, width here} or {"endless", key, field}. Keys are indices of KEYS.

local ANSWER, VERSION, DECISIONS, OUTCOMES, SETTINGS, LATEST = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local HOUR, WEEK = 3600, 604800
local call, values = ARGV[1], ARGV[3]

-- Sent again because its answer got lost: the answer is given again. Calls have as many digits, so text compares them.
local last = redis.call('GET', ANSWER) or ''
local answered = string.sub(last, 1, #call)
if answered == call then
    return {'claimed', string.sub(last, #call + 1)}
elseif answered > call then
    return {'late'} -- on its way for so long that nobody waits for it
end

local batch = cmsgpack.unpack(ARGV[2])
local at = 1
local function value(size)
    at = at + size
    return string.sub(values, at - size, at - 1)
end

-- Decisions, each {id, size, kind}; what those of a kind share is {log, sums, field of the count, uses, version}.
local new, seen, counts = {}, {}, {}
local function known(id)
    if seen[id] == nil then
        seen[id] = redis.call('HEXISTS', DECISIONS, id) == 1
    end
    return seen[id]
end
for _, decision in ipairs(batch.decisions) do
    local id, size, kind = decision[1], decision[2], decision[3]
    local row = value(size)
    if not known(id) then
        seen[id] = true
        new[#new + 1] = {id, row, batch.kinds[kind][1]}
        counts[kind] = (counts[kind] or 0) + 1
    end
end

-- Outcomes of a decision are kept end to end, each the length of its name, the name, its value and its time.
local outcomes = {}
local function find(kept, name)
    local from = 1
    while from <= #kept do
        local length = struct.unpack('<I4', kept, from)
        local past = from + 20 + length
        if string.sub(kept, from + 4, from + 3 + length) == name then
            return from, past, (struct.unpack('<d', kept, from + 4 + length))
        end
        from = past
    end
    return from, from, nil
end

-- Credits, each {decision, name, value, time, adds, what it replaces, and the outcome that it was worked out from: its
-- name, its value}.
local claims, adds = {}, {}
local function all(more)
    for _, add in ipairs(more) do
        adds[#adds + 1] = add
    end
end
if batch.writer then
    local added = redis.call('GET', KEYS[batch.writer])
    if not added or batch.number > tonumber(added) then
        all(batch.adds)
    else
        batch.writer = nil
    end
else
    all(batch.adds)
end
for i, credit in ipairs(batch.credits) do
    local id, name = credit[1], credit[2]
    if not known(id) then
        return {'unknown', id}
    end
    local kept = outcomes[id] or redis.call('HGET', OUTCOMES, id) or ''
    local from, past, there = find(kept, name)
    local as_given = true
    if credit[7] then
        local _, _, other = find(kept, credit[7])
        as_given = other == credit[8]
    end
    claims[i] = '0'
    if there == credit[6] and as_given then
        claims[i] = '1'
        local record = struct.pack('<I4', #name) .. name .. struct.pack('<dd', credit[3], credit[4])
        outcomes[id] = string.sub(kept, 1, from - 1) .. record .. string.sub(kept, past)
        all(credit[5])
    end
end

-- Adds, each {key, field, row}. Sums are float64, end to end.
local sums = {}
local function add(key, field, row)
    sums[key] = sums[key] or {}
    local total = sums[key][field]
    if not total then
        total = {}
        local stored = redis.call('HGET', KEYS[key], field)
        for i = 1, stored and #stored / 8 or #row do
            total[i] = stored and struct.unpack('<d', stored, 8 * i - 7) or 0
        end
        sums[key][field] = total
    end
    if #total ~= #row then
        return {'wide', key, field, #total, #row}
    end
    for i = 1, #row do
        total[i] = total[i] + row[i]
    end
end
for kind, count in pairs(counts) do
    local fault = add(batch.kinds[kind][2], batch.kinds[kind][3], {count})
    if fault then
        return fault
    end
end
for _, each in ipairs(adds) do
    local fault = add(each[1], each[2], each[3])
    if fault then
        return fault
    end
end
local packed = {}
for key, fields in pairs(sums) do
    for field, total in pairs(fields) do
        for i, x in ipairs(total) do
            if x ~= x or x == math.huge or x == -math.huge then
                return {'endless', key, field}
            end
            total[i] = struct.pack('<d', x)
        end
        packed[#packed + 1] = {key, field, table.concat(total)}
    end
end

for _, decision in ipairs(new) do
    redis.call('HSET', DECISIONS, decision[1], decision[2])
    redis.call('ZADD', KEYS[decision[3]], 0, decision[1])
end
for kind, count in pairs(counts) do
    redis.call('HINCRBY', KEYS[batch.kinds[kind][4]], batch.kinds[kind][5], count)
end
for id, kept in pairs(outcomes) do
    redis.call('HSET', OUTCOMES, id, kept)
end
for _, sum in ipairs(packed) do
    redis.call('HSET', KEYS[sum[1]], sum[2], sum[3])
end
for _, fit in ipairs(batch.fits) do -- {key, route, version, size, digest of the settings, settings}
    if redis.call('HSETNX', KEYS[fit[1]], fit[3], value(fit[4])) == 1 then
        redis.call('HSETNX', SETTINGS, fit[5], fit[6])
        redis.call('HSET', LATEST, fit[2], fit[3])
    end
end
if batch.writer and #batch.adds > 0 then
    redis.call('SET', KEYS[batch.writer], string.format('%.0f', batch.number), 'EX', WEEK)
end
redis.call('INCR', VERSION)
redis.call('SET', ANSWER, call .. table.concat(claims), 'EX', HOUR)
return {'claimed', table.concat(claims)}
