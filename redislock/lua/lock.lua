-- Many requests in one call: the part that answers those that nobody stands in the way of.
-- Whatever is left over goes on to slow.lua.
--
-- KEYS[2]    the fence counter
-- KEYS[3..]  the key of each request's name. In a cluster the companions of each follow, for
--            the server to refuse the call while they are being moved to another node
-- ARGV[3]    the caller's clock in us, proposed as the next fence
-- ARGV[4,5]  how and where to tell the caller of a grant: PUBLISH or SPUBLISH, and its
--            channel, '-' for none
-- ARGV[6]    '' or, in a cluster, the hash tag '{...}' of the slot that all keys are in
-- ARGV[7..]  three for each request: op, id, ttl in ms
--
-- id is 'owner token', or the token alone: its last 22 bytes. The ops are
--   x s u p g  ask for an exclusive, shared, upgradeable share, for permits, for the
--              upgrade of the upgradeable share held; upper case to wait for it.
--              Then 'span' or, for permits, 'span limit weight'
--   c          followed by an op that waited: stop waiting; give back what was granted, but
--              an upgrade leaves the share
--   d          followed by a fence: give back what was granted with that fence
--   e          renew; followed, but on a server without a gate, by 'top mode limit weight'
--   r          give back
--   b          break; followed by the fence that a holder must have, or 0; id is the record
--              for the audit list
-- All requests of a call are concurrent; those that give back are carried out first.
--
-- Reply: {words, payload...}: one word a request, separated by spaces, and payloads for the
-- words marked * in their order. A gated call that was not cut off has '@term' as its first
-- word. Where all was granted as asked, given back and renewed, '+<fence>' stands for all words.
--   <fence>[/span]   granted: first fence; the span where it is not the one asked for
--   =                done
--   -                the token holds nothing, or no longer
--   q<pttl>,<count>* queued; ms to the holder's end, the fence counter; payload: a holder
--   h<pttl>*         held by others; payload: a holder
--   w<ms>            not before that many ms: failover grace
--   n                not now: too few replicas acknowledge
--   l<limit>         other limit in use
--   f                the queue is full
--   s*               break refused, nobody has that fence; b*: broken. payload: the holders
--   !*               failed, and was not done; payload: the server's error
--   ?*               failed in the middle; payload: the server's error
--
-- A lock is a string key with PX. Where it is exclusive its value is 'owner token numbers
-- seconds.micros': numbers are the fences granted, 'first' or 'first+more', and the time is
-- that of the grant. Where readers or permits hold it, it is GROUP, see group.lua.
local GROUP = 'holdfast:group'
local n = (#ARGV - 6) / 3
local words, payload, slow, odd = {}, {}, {}, false
local now, stamp = tonumber(ARGV[3]), clock[1] .. '.' .. clock[2]
local QUEUE = 'holdfast.q:' .. ARGV[6]

-- A clock that is years ahead must not use up the numbers for everybody.
local limit = (clock[1] + 86400) * 1000000
if now > limit then now = limit end

local stored -- the counter, once it was read or written
local function count(r)
  if type(r) == 'table' and r.err then return r.err end
  stored = tonumber(r or 0) or 0
  if stored > 9000000000000000 then return 'the fence counter ' .. KEYS[2] .. ' is out of range' end
end

local takes, most, frees, keys, queues, q = {}, 1, {}, {}, {}, 0
if phase == 'open' then
  local nt, nf = 0, 0
  for i = 1, n do
    local op = ARGV[4 + 3 * i]
    local code = string.byte(op)
    if code == 120 or code == 88 then -- x X
      nt, q = nt + 1, q + 1
      takes[nt] = i
      queues[q] = QUEUE .. KEYS[i + 2]
      if op ~= 'x1' and op ~= 'X1' then most = math.max(most, tonumber(string.sub(op, 2))) end
    elseif code == 114 or code == 101 then -- r e
      nf = nf + 1
      frees[nf] = i
      keys[nf] = KEYS[i + 2]
      if code == 114 then
        q = q + 1
        queues[q] = QUEUE .. KEYS[i + 2]
      end
    else
      slow[#slow + 1] = i
    end
  end
else
  for i = 1, n do slow[i] = i end
end

-- Where somebody waits, everything takes its turn in the queue.
local waited
if q > 0 and redis.call('EXISTS', unpack(queues)) > 0 then
  waited = {}
  for _, i in ipairs(takes) do waited[i] = redis.call('EXISTS', QUEUE .. KEYS[i + 2]) > 0 end
  for _, i in ipairs(frees) do waited[i] = redis.call('EXISTS', QUEUE .. KEYS[i + 2]) > 0 end
end

if #frees > 0 then
  local values, gone, freed, g = redis.call('MGET', unpack(keys)), {}, {}, 0
  for k = 1, #frees do
    local i, v = frees[k], values[k]
    local release = ARGV[4 + 3 * i] == 'r'
    if v == GROUP or release and waited and waited[i] then
      slow[#slow + 1] = i
    elseif not v or not string.find(v, string.sub(ARGV[5 + 3 * i], -22), 1, true) then
      words[i], odd = '-', true
    elseif release then
      g = g + 1
      gone[g], freed[g] = keys[k], i
    else
      local r = redis.pcall('PEXPIRE', keys[k], ARGV[6 + 3 * i])
      if type(r) == 'table' then words[i], payload[i], odd = '!', r.err, true end
    end
  end
  if g > 0 then
    local r = redis.pcall('DEL', unpack(gone))
    if type(r) == 'table' then
      if string.find(r.err, '^READONLY') then return redis.error_reply(r.err) end
      for _, i in ipairs(freed) do words[i], payload[i], odd = '!', r.err, true end
    end
  end
end

-- All that is granted here goes by one number, or block of numbers: numbers tell apart the
-- holders of one name, and of a name there is only one. The counter goes to the clock, which
-- is ahead of it unless more than a number a microsecond was given out; then nobody gets more
-- than one, for the counter must not outrun the clock.
local first
if #takes > 0 then
  local err = count(redis.pcall('SET', KEYS[2], string.format('%d', now), 'GET'))
  if err and string.find(err, '^READONLY') then return redis.error_reply(err) end
  local top, whole = now, true
  if not err and stored + most > now then
    whole, most, top = false, 1, math.max(stored + 1, now)
    err = redis.pcall('SET', KEYS[2], string.format('%d', top)).err
  end
  stored, first = top, string.format('%d', top - most + 1)
  local tail = ' ' .. first .. ' ' .. stamp
  for k = 1, #takes do
    local i = takes[k]
    local op = ARGV[4 + 3 * i]
    if err then
      words[i], payload[i], odd = '!', err, true
    elseif waited and waited[i] then
      slow[#slow + 1] = i
    else
      local ending, many = tail, op ~= 'x1' and op ~= 'X1'
      if many and whole then ending = ' ' .. first .. '+' .. string.sub(op, 2) - 1 .. ' ' .. stamp end
      local r = redis.pcall('SET', KEYS[i + 2], ARGV[5 + 3 * i] .. ending, 'NX', 'PX', ARGV[6 + 3 * i])
      if not r then
        slow[#slow + 1] = i
      elseif r.err then
        words[i], payload[i], odd = '!', r.err, true
      elseif many and not whole then
        words[i], odd = first .. '/1', true
      end
    end
  end
end

if not odd and #slow == 0 then return {mark .. '+' .. (first or '0')} end

local function reply()
  for i = 1, n do
    local code = string.byte(ARGV[4 + 3 * i])
    words[i] = words[i] or (code == 120 or code == 88) and first or '='
  end
  local out = {mark .. table.concat(words, ' ', 1, n)}
  for i = 1, n do
    if payload[i] then out[#out + 1] = payload[i] end
    if (words[i] == '!' or words[i] == '?') and string.find(payload[i], 'READONLY', 1, true) then
      -- Nothing of the whole call was done. The library drops the connection on this word.
      return redis.error_reply('READONLY this server is a replica')
    end
  end
  return out
end

if #slow == 0 then return reply() end
