-- Forgets decisions of one route that are still there, and the fits that nothing else names.
-- ARGV: the route, {id, version} of each decision, and the versions whose fits stay (both MessagePack).

local DECISIONS, OUTCOMES, LATEST, LOG, USES, FITS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local gone, stays = {}, {}
for _, version in ipairs(cmsgpack.unpack(ARGV[3])) do
    stays[version] = true
end
for _, decision in ipairs(cmsgpack.unpack(ARGV[2])) do
    local id, version = decision[1], decision[2]
    if redis.call('HDEL', DECISIONS, id) == 1 then
        gone[version] = (gone[version] or 0) + 1
    end
    redis.call('HDEL', OUTCOMES, id)
    redis.call('ZREM', LOG, id)
end
local latest = redis.call('HGET', LATEST, ARGV[1])
if latest then
    stays[latest] = true
end
for version, count in pairs(gone) do
    if redis.call('HINCRBY', USES, version, -count) <= 0 then
        redis.call('HDEL', USES, version)
        if not stays[version] then
            redis.call('HDEL', FITS, version)
        end
    end
end
