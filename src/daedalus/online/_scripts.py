"""What runs on the server, where it is atomic: nothing comes between the comparison and the write."""

from __future__ import annotations

#: KEYS: of rows. ARGV: 1 when rows expire; 1 when older rows confirm; the records; then, when they expire, milliseconds
#: to live.
#: A record is older when the 26 bytes at 6 sort before the stored one's. They are compared as numbers of 32 bits:
#: Lua compares text by the server's locale. A key may come twice: the second row meets the first. A row that is older
#: and confirms leaves its write time with the newer one, so that `PRUNE` sees that the entity is still there. Answers
#: rows written and rows that were older.
WRITE = """
local n, expires, confirms = #KEYS, ARGV[1] == '1', ARGV[2] == '1'
local stored = redis.call('MGET', unpack(KEYS))
local written, older, puts, latest = 0, 0, {}, {}
for i = 1, n do
  local new, old, put = ARGV[i + 2], latest[KEYS[i]] or stored[i], true
  if old then
    if #old < 40 or string.byte(old, 1) ~= string.byte(new, 1) then
      return redis.error_reply('FORMAT ' .. KEYS[i])
    end
    if string.sub(old, 7, 32) ~= string.sub(new, 7, 32) then
      local a = {struct.unpack('>I4I4I4I4I4I4I2', string.sub(old, 7, 32))}
      local b = {struct.unpack('>I4I4I4I4I4I4I2', string.sub(new, 7, 32))}
      for j = 1, 7 do
        if a[j] ~= b[j] then
          put = b[j] > a[j]
          break
        end
      end
    end
  end
  if put then
    written = written + 1
    latest[KEYS[i]] = new
    if expires then
      redis.call('SET', KEYS[i], new, 'PX', ARGV[n + 2 + i])
    else
      puts[#puts + 1] = KEYS[i]
      puts[#puts + 1] = new
    end
  else
    older = older + 1
    if confirms and not latest[KEYS[i]] then
      redis.call('SETRANGE', KEYS[i], 32, string.sub(new, 33, 40))
    end
  end
end
if #puts > 0 then
  redis.call('MSET', unpack(puts))
end
return {written, older}
"""

#: KEYS: of rows. ARGV: a write time as it stands in records; the record of a deleted entity; milliseconds it lives.
#: What was written before that time, and is no newer than the deletion, becomes deleted. Answers how many.
PRUNE = """
local function before(a, b, format)
  local x, y = {struct.unpack(format, a)}, {struct.unpack(format, b)}
  for j = 1, #x - 1 do
    if x[j] ~= y[j] then
      return x[j] < y[j]
    end
  end
  return false
end
local pruned = 0
for i = 1, #KEYS do
  local old = redis.call('GET', KEYS[i])
  if old and #old >= 40 and string.byte(old, 1) == string.byte(ARGV[2], 1) and string.byte(old, 2) % 2 == 0
      and before(string.sub(old, 33, 40), ARGV[1], '>I4I4')
      and not before(string.sub(ARGV[2], 7, 32), string.sub(old, 7, 32), '>I4I4I4I4I4I4I2') then
    redis.call('SET', KEYS[i], ARGV[2], 'PX', ARGV[3])
    pruned = pruned + 1
  end
end
return pruned
"""

#: KEYS: one per run of events. ARGV: now in microseconds; microseconds to keep, or ''; milliseconds to live; then per
#: key a count, scores and members. Answers events added and events dropped as older than what is kept.
APPEND = """
local now, keep, live, at = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 4
local added, dropped = 0, 0
for i = 1, #KEYS do
  local count, pairs = tonumber(ARGV[at]), {}
  for j = 1, 2 * count do
    pairs[j] = ARGV[at + j]
  end
  at = at + 1 + 2 * count
  added = added + redis.call('ZADD', KEYS[i], unpack(pairs))
  if keep then
    local newest = tonumber(redis.call('ZREVRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2])
    if newest > now then newest = now end
    local limit = string.format('(%.0f', newest - keep)
    dropped = dropped + redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', limit)
    redis.call('PEXPIRE', KEYS[i], live)
  else
    redis.call('PERSIST', KEYS[i])
  end
end
return {added, dropped}
"""
