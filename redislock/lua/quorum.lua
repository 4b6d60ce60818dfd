-- Many requests about exclusive locks in one call to a node of a quorum. It follows
-- quorum_node.lua, which says KEYS[1,2] and ARGV[1].
--
-- KEYS[3..]  the key of each request's name
-- ARGV[2]    the epoch that the caller's rounds are of
-- ARGV[3]    the caller's inbox, for wake-ups
-- ARGV[4..]  three for each request: op, id, ttl in ms
--
-- id is 'owner token', or the token alone: its last 22 bytes, of one attempt only. The ops are
--   x<span> <us>       acquire; us is the attempt's clock, proposed as the next fence to all
--                      nodes, so that they agree at once
--   X<span> <us> <at>  the same, to be woken when it is refused; at is the us of the arrival
--                      of who asks, the same in all its attempts: all nodes wake the same
--   v<fence> <span>    vouch, in a second round and to renew: the fences of the attempt are
--                      the span that ends with fence
--   m<old> <new>       move the vouch of an attempt that has old and nothing since to new
--   r                  give back, and wake who is first
--   d                  give back and wake nobody: for an attempt that will be made again
--   l                  wait no longer; pass a wake-up on that came for nothing
--   b<fence>           break; fence is one that the holder must have, or 0; id is the record
--                      for the audit list
-- Those that give back are carried out first, then vouches, then the others.
--
-- Reply: {'<state><epoch> word...', payload...}: how the node is, a word for each request and,
-- in their order, payloads for the words marked *. Or {'!constants', those of the node}.
--   <first>[/span]  granted here: the first number; the span where it is not the one asked for
--   =               done
--   -               the token holds nothing here
--   c<n>            no vouch: numbers up to n were given out here since
--   h<pttl>*        held by others; payload: a holder
--   e               the node is in another epoch
--   w<ms>           it grants and vouches nothing for that many ms: grace
--   f               it forgot and has to be seeded
--   s* b*           break refused, broken. payload: the holder
--   !*              failed, and was not done; payload: the server's error
--   ?*              failed in the middle; payload: the server's error
--
-- A lock is a string key with PX, as on a server on its own: 'owner token numbers
-- seconds.micros', where numbers are 'first' or 'first+more'. Its companions are
--   COUNTER .. key  the highest number that was given out here for the name. It may run out:
--                   see mark. While an attempt holds the key its numbers end with the same
--   WAITING .. key  sorted set: who wants to be woken, by the us of its arrival
local COUNTER, WAITING = 'holdfast.c:', 'holdfast.i:'
local MOST = 9000000000000000
local AHEAD = 10000 -- us

if state ~= 'v' and constants ~= ARGV[1] then return {'!constants', constants} end

-- A clock that is far ahead must not use up the numbers for everybody.
local limit = (clock[1] + 3600) * 1000000

local function number(n) return string.format('%d', n) end

-- raise keeps top above n, and a bit ahead so that it is written a hundred times a second and
-- not with each lock. It comes before n is written anywhere.
local function raise(n)
  if n > MOST then return 'the fence counter is out of range' end
  if n <= top then return nil end
  local r = redis.pcall('SET', KEYS[2], number(n + AHEAD))
  if r.err then return r.err end
  top = n + AHEAD
end

-- count writes the counter of a name.
local function count(key, n, ttl)
  return redis.pcall('SET', COUNTER .. key, number(n), 'PX', KEEP + ttl).err
end

local function value(head, first, last, tail)
  if first < last then return head .. ' ' .. number(first) .. '+' .. number(last - first) .. tail end
  return head .. ' ' .. number(first) .. tail
end

-- parts takes a value apart that the token signed: what stands before the numbers, the first
-- and the last of them, what stands after them.
local function parts(v, token)
  if type(v) ~= 'string' then return nil end
  local _, stop = string.find(v, token, 1, true)
  if not stop then return nil end
  local first, more, tail = string.match(v, '^ (%d+)%+?(%d*)( %d+%.%d+)$', stop + 1)
  if not first then return nil end
  first = tonumber(first)
  return string.sub(v, 1, stop), first, first + (tonumber(more) or 0), tail
end

-- wake tells who is first that what the token held is free, '-' for whatever it was.
local function wake(key, token)
  for _ = 1, 64 do
    local inbox = redis.call('ZPOPMIN', WAITING .. key)[1]
    if not inbox then return end
    local ears = redis.pcall('PUBLISH', inbox, 'free ' .. token .. ' ' .. key)
    if type(ears) == 'number' and ears > 0 then return end
  end
end

local function acquire(key, op, id, ttl)
  local asked, now, at = string.match(op, '^%a(%d+) (%d+) ?(%d*)$')
  asked, now = tonumber(asked), math.min(tonumber(now), limit)
  local wait = at ~= ''
  local v = redis.pcall('GET', key)
  if type(v) == 'table' then return '!', v.err end
  if v then
    local _, first, last = parts(v, string.sub(id, -22))
    if not first or last <= floor then
      if wait then
        redis.call('ZADD', WAITING .. key, at, ARGV[3])
        redis.call('PEXPIRE', WAITING .. key, 60000)
      end
      return 'h' .. number(redis.call('PTTL', key)), 'x 1 ' .. v
    end
    redis.call('PEXPIRE', key, ttl)
    if last - first + 1 == asked then return number(first) end
    return number(first) .. '/' .. number(last - first + 1)
  end
  local c = redis.pcall('GET', COUNTER .. key)
  if type(c) == 'table' then return '!', c.err end
  c = c and math.max(tonumber(c) or MOST, floor) or mark
  -- The counter must not outrun the clock by spans.
  local span = math.max(1, math.min(asked, now - c))
  local last = math.max(c + span, now)
  local first = last - span + 1
  local err = raise(now) or raise(last) or count(key, last, ttl)
  if err then return '!', err end
  local r = redis.pcall('SET', key, value(id, first, last, ' ' .. clock[1] .. '.' .. clock[2]), 'NX', 'PX', ttl)
  if not r or r.err then return '!', r and r.err or 'the key is in use' end
  if wait then redis.call('ZREM', WAITING .. key, ARGV[3]) end
  if span == asked then return number(first) end
  return number(first) .. '/' .. number(span)
end

-- set makes the numbers of an attempt end with fence.
local function set(key, head, first, fence, tail, ttl)
  local err = raise(fence) or count(key, fence, ttl)
  if err then return '!', err end
  local r = redis.pcall('SET', key, value(head, first, fence, tail), 'XX', 'PX', ttl)
  if not r or r.err then return '!', r and r.err or 'the key is gone' end
  return '='
end

local function vouch(key, op, id, ttl)
  local fence, span = string.match(op, '^v(%d+) (%d+)$')
  fence, span = tonumber(fence), tonumber(span)
  local head, first, last, tail = parts(redis.pcall('GET', key), string.sub(id, -22))
  if not head then return '-' end
  local c = math.max(last, floor)
  if c > fence or first > fence - span + 1 then return 'c' .. number(c) end
  if last < fence then return set(key, head, fence - span + 1, fence, tail, ttl) end
  redis.call('PEXPIRE', key, ttl)
  return '='
end

local function move(key, op, id, ttl)
  local from, to = string.match(op, '^m(%d+) (%d+)$')
  from, to = tonumber(from), tonumber(to)
  local head, _, last, tail = parts(redis.pcall('GET', key), string.sub(id, -22))
  if not head then return '-' end
  local c = math.max(last, floor)
  if c ~= from and c ~= to or from > to then return 'c' .. number(c) end
  return set(key, head, to, to, tail, ttl)
end

local function release(key, id, loud)
  local v = redis.pcall('GET', key)
  if type(v) ~= 'string' or not string.find(v, string.sub(id, -22), 1, true) then return '-' end
  local r = redis.pcall('DEL', key)
  if type(r) == 'table' then return '!', r.err end
  if loud then wake(key, string.sub(id, -22)) end
  return '='
end

local function leave(key)
  local was = redis.call('ZREM', WAITING .. key, ARGV[3])
  if redis.call('EXISTS', key) == 0 then wake(key, '-') end
  return was == 1 and '=' or '-'
end

-- has says whether the holder has that fence among its numbers.
local function has(v, fence)
  local first, more = string.match(v, ' (%d+)%+?(%d*) %d+%.%d+$')
  first = tonumber(first)
  return first and first <= fence and fence <= first + (tonumber(more) or 0)
end

local function breakUp(key, fence, record)
  local v = redis.pcall('GET', key)
  if type(v) == 'table' then return '!', v.err end
  if not v then return '-' end
  if fence > 0 and not has(v, fence) then return 's', 'x 1 ' .. v end
  redis.call('DEL', key)
  redis.pcall('LPUSH', 'holdfast.audit', clock[1] .. ' ' .. record)
  redis.pcall('LTRIM', 'holdfast.audit', 0, 999)
  redis.pcall('EXPIRE', 'holdfast.audit', 90 * 86400)
  wake(key, '-')
  return 'b', 'x 1 ' .. v
end

-- order is in which of three goes a request is carried out.
local order = {r = 1, d = 1, v = 2, m = 2}

local function answer(i)
  local key, op, id, ttl = KEYS[i + 2], ARGV[1 + 3 * i], ARGV[2 + 3 * i], tonumber(ARGV[3 + 3 * i])
  local letter = string.sub(op, 1, 1)
  if letter == 'r' or letter == 'd' then return release(key, id, letter == 'r') end
  if letter == 'l' then return leave(key) end
  if letter == 'b' then return breakUp(key, tonumber(string.sub(op, 2)), id) end
  if state == 'f' or state == 'v' then return 'f' end
  if state == 'g' then return 'w' .. number(left) end
  if epoch ~= ARGV[2] then return 'e' end
  if letter == 'v' then return vouch(key, op, id, ttl) end
  if letter == 'm' then return move(key, op, id, ttl) end
  return acquire(key, op, id, ttl)
end

local n = (#ARGV - 3) / 3
local words, payload = {}, {}
for go = 1, 3 do
  for i = 1, n do
    if (order[string.sub(ARGV[1 + 3 * i], 1, 1)] or 3) == go then
      -- Where a key is not what it should be, a call raises an error in the middle: that is
      -- the end of this request only.
      local ok, word, more = pcall(answer, i)
      if not ok then word, more = '?', type(word) == 'table' and word.err or tostring(word) end
      words[i], payload[i] = word, more
    end
  end
end
local out = {state .. epoch .. ' ' .. table.concat(words, ' ', 1, n)}
for i = 1, n do
  if payload[i] then out[#out + 1] = payload[i] end
end
return out
