-- The gate: may this server grant, and whom? It is the first part of the script
-- for everything that single.lua does not do.
--
-- ARGV[1]  '' for a server on its own, where the gate costs nothing, or the constants of the
--          deployment: 'maxTTL replicas lag', in ms, a count, and seconds
-- ARGV[2]  '' or 'term ms': for how long the caller has had answers from that term
-- KEYS[1]  the epoch: 'v1 term start constants', without a TTL
-- and the marks, holdfast.poke, see below
--
-- phase    'open'    everything is granted
--          'grace'   who held something before may take it again, nobody new gets anything
--          'quiet'   nothing at all is confirmed: the predecessor may not have fallen silent
--          'cut off' too few replicas acknowledge: things are given back, and that is all
-- left     ms until the phase is 'open', or in 'quiet' what a renewal has to wait for
-- term     the mastership that answers, new at every start and every promotion; mark is how a
--          reply begins with it. When cut off it does not: a term is known from its first live
--          answer, for then its graces begin and not before
--
-- Reply of a gate that is shut to everybody: the error READONLY, or {'!constants', stored}.
local phase, left, quiet, mark = 'open', 0, 0, ''
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

if ARGV[1] ~= '' then
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    -- The library drops the connection on this word, and asks anew who is master.
    return redis.error_reply('READONLY this server is a replica')
  end
  local term = string.match(info, 'master_replid:(%x+)')
  local max, need, lag = string.match(ARGV[1], '^(%d+) (%d+) (%d+)$')
  max, need, lag = tonumber(max), tonumber(need), tonumber(lag)

  -- An acknowledgement counts if it is of something that was written in this term, and not
  -- long ago. When it arrived, which is what the server tells, says nothing: one that left
  -- before its replica turned to another master may have lain in the socket of a master that
  -- was frozen for an hour. So there are marks: how far the master had written, and when.
  -- 'term ms offset ms offset ...', the oldest first; what replicas have of another term's says
  -- nothing of this one. To write them also gives replicas something to acknowledge.
  local acks = 0
  if need > 0 then
    local window, poke = (lag + 1) * 1000, 'holdfast.poke' .. ARGV[6]
    local marks, kept, written, last = redis.pcall('GET', poke), '', nil, nil
    if type(marks) == 'string' and string.sub(marks, 1, #term + 1) == term .. ' ' then
      for at, offset in string.gmatch(marks, ' (%d+) (%d+)') do
        local age = ms - tonumber(at)
        if age >= 0 and age < window then
          written, last = written or tonumber(offset), age
          kept = kept .. ' ' .. at .. ' ' .. offset
        end
      end
    end
    if not last or last >= window / 16 then
      local offset = string.match(info, 'master_repl_offset:(%d+)')
      redis.pcall('SET', poke, term .. kept .. ' ' .. string.format('%d', ms) .. ' ' .. offset, 'PX', window)
    end
    for state, offset, late in string.gmatch(info, 'slave%d+:[^\r\n]*state=([%a_]+)[^\r\n]*,offset=(%d+)[^\r\n]*,lag=(%d+)') do
      if written and tonumber(offset) > written and state == 'online' and tonumber(late) <= lag then acks = acks + 1 end
    end
  end
  if acks < need then
    phase = 'cut off'
  else
    mark = '@' .. term .. ' '
    local silence = 0 -- until when the predecessor may go on answering
    if need > 0 then silence = (lag + 2) * 1000 end
    local grace = math.ceil((max + silence) * 1.01) + 2

    local epoch = redis.call('GET', KEYS[1])
    local stored, start, constants
    if epoch then stored, start, constants = string.match(epoch, '^v1 (%x+) (%-?%d+) (.+)$') end
    if stored and constants ~= ARGV[1] then return {'!constants', constants} end
    start = tonumber(start)
    if stored ~= term or start > ms then
      start = ms
      local known, since = string.match(ARGV[2], '^(%x+) (%d+)$')
      if not epoch and known == term and tonumber(since) >= grace then start = ms - grace end
      local r = redis.pcall('SET', KEYS[1], 'v1 ' .. term .. ' ' .. string.format('%d', start) .. ' ' .. ARGV[1])
      if r.err then return redis.error_reply(r.err) end
    end
    if ms < start + silence then
      phase, left, quiet = 'quiet', start + grace - ms, start + silence - ms
    elseif ms < start + grace then
      phase, left = 'grace', start + grace - ms
    end
  end
end
