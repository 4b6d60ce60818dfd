-- One value: read it, or write it where what is stored lets the caller. It follows gate.lua.
--
-- KEYS[2]  the counter that fences come from: versions do as well, so that they grow across
--          deletion and expiry
-- KEYS[3]  the value: a string 'version fence', a newline, the data
-- ARGV[3]  read, write or delete
-- ARGV[4]  the version that has to be stored, 0 for none, '' for whatever is there
-- ARGV[5]  the fence of the writer, 0 for none
-- ARGV[6]  '' or, in a cluster, the hash tag of the slot
-- ARGV[7]  for how long to keep it, in ms, 0 for ever
-- ARGV[8]  the channel on which those who wait for a change are told; where the user may not
--          publish they find out when they look
-- ARGV[9]  the data
--
-- Reply: {word, version, fence, ms to the end or 0, the server's clock in us, data}: what is
-- stored after it.
--   =      done
--   stale  refused, for another version or a higher fence is stored
--   cut    refused: too few replicas acknowledge, so this master may not be the only one
--   quiet  refused: it has just taken over, and its predecessor may not have fallen silent
local micros = clock[1] * 1000000 + clock[2]
local version, fence, data, left = 0, 0, '', 0

local v = redis.call('GET', KEYS[3])
if v then
  local head
  head, fence, data = string.match(v, '^(%d+) (%d+)\n(.*)$')
  if not head then return redis.error_reply('WRONGTYPE what is stored is no value of holdfast') end
  version, fence = tonumber(head), tonumber(fence)
  left = redis.call('PTTL', KEYS[3])
  left = left == -1 and 0 or math.max(1, left) -- 0 stands for ever, not for the last millisecond
end

local function reply(word)
  local function int(n) return string.format('%.0f', n) end
  return {word, int(version), int(fence), int(left), int(micros), data}
end

if ARGV[3] == 'read' then return reply('=') end
if phase == 'cut off' then return reply('cut') end
if phase == 'quiet' then return reply('quiet') end

local mine = tonumber(ARGV[5])
if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= version or mine > 0 and mine < fence then return reply('stale') end

if ARGV[3] == 'delete' then
  if v then
    redis.call('DEL', KEYS[3])
    redis.pcall('PUBLISH', ARGV[8], '')
  end
  version, fence, data, left = 0, 0, '', 0
  return reply('=')
end

local next = math.max(micros, (tonumber(redis.call('GET', KEYS[2]) or 0) or 0) + 1, version + 1)
local text = string.format('%.0f', next)
redis.call('SET', KEYS[2], text)
fence = math.max(fence, mine)
local stored = text .. ' ' .. string.format('%.0f', fence) .. '\n' .. ARGV[9]
if ARGV[7] == '0' then
  redis.call('SET', KEYS[3], stored)
else
  redis.call('SET', KEYS[3], stored, 'PX', ARGV[7])
end
redis.pcall('PUBLISH', ARGV[8], '')
version, data, left = next, ARGV[9], tonumber(ARGV[7])
return reply('=')
