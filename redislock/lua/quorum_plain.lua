-- The plain cases of quorum.lua: a lock that is free or held by others is asked for at a node
-- that serves, or a lock is given back. That is most of what a node is asked, and without
-- functions, and what the other cases need, it costs half. KEYS, ARGV and the reply are
-- those of quorum.lua, but for these: the ops are x, X, r and d, and those that give back come
-- first; the reply says nothing of the node; and the word may be
--   ~  nothing was done: the request is one for quorum.lua
-- Other words for x and X are from a node that serves and is in the epoch ARGV[2]. What a token
-- holds is given back whatever the node is like; a replica refuses that by itself.
local KEEP, AHEAD, MOST = 3600000, 10000, 9000000000000000
local try, sub = redis.pcall, string.sub
local n, i, words, payloads = #KEYS - 2, 1, {}, {}

while i <= n do
  local key, letter, token = KEYS[i + 2], ARGV[1 + 3 * i], sub(ARGV[2 + 3 * i], -22)
  if letter ~= 'r' and letter ~= 'd' then break end
  local word = '~'
  local v = try('GET', key)
  if type(v) == 'string' and string.find(v, token, 1, true) and try('DEL', key) == 1 then
    word = '='
    for _ = 1, letter == 'r' and 64 or 0 do
      local first = try('ZPOPMIN', 'holdfast.i:' .. key)
      if first.err then word, payloads[#payloads + 1] = '?', first.err end
      if not first[1] then break end
      local ears = try('PUBLISH', first[1], 'free ' .. token .. ' ' .. key)
      if type(ears) == 'number' and ears > 0 then break end
    end
  end
  words[i], i = word, i + 1
end

-- What quorum_node.lua finds out. No number above most is granted here, and none at all
-- where the node does not serve.
local most, floor, mark, top, stamp = 0, nil, nil, nil, nil
if i <= n then
  local kept = redis.call('MGET', KEYS[1], KEYS[2])
  local term, epoch, f, m, since, constants =
    string.match(kept[1] or '', '^v1 (%x+) (%S+) 0 (%d+) (%d+) (%d+) (.+)$')
  top = tonumber(kept[2] or '')
  if top and epoch == ARGV[2] and constants == ARGV[1] then
    local clock, info = redis.call('TIME'), redis.call('INFO', 'replication')
    local age = clock[1] * 1000 + math.floor(clock[2] / 1000) - since
    if age >= 0 and age < KEEP / 2 and string.find(info, 'role:master', 1, true)
      and string.find(info, 'master_replid:' .. term .. '\r', 1, true) then
      most = math.min((clock[1] + 3600) * 1000000, MOST)
      floor, mark, stamp = tonumber(f), tonumber(m), ' ' .. clock[1] .. '.' .. clock[2]
    end
  end
end

local brief, keep -- a ttl, and that of its counter: they are often the same for all
while i <= n do
  local key, op, id, ttl = KEYS[i + 2], ARGV[1 + 3 * i], ARGV[2 + 3 * i], ARGV[3 + 3 * i]
  local span, us, at = 1, sub(op, 4), ''
  if sub(op, 1, 3) ~= 'x1 ' then
    span, us, at = string.match(op, '^%a(%d+) (%d+) ?(%d*)$')
    span = tonumber(span)
  end
  local word, last, numbers, r = '~', tonumber(us), us, nil
  if last <= most then
    if span > 1 then numbers = string.format('%d+%d', last - span + 1, span - 1) end
    r = try('SET', key, id .. ' ' .. numbers .. stamp, 'NX', 'PX', ttl)
  end
  if r == false then
    local v = try('GET', key)
    if type(v) == 'string' and not string.find(v, sub(id, -22), 1, true)
      and (at == '' or type(try('ZADD', 'holdfast.i:' .. key, at, ARGV[3])) == 'number') then
      if at ~= '' then redis.call('PEXPIRE', 'holdfast.i:' .. key, 60000) end
      word, payloads[#payloads + 1] = 'h' .. string.format('%d', redis.call('PTTL', key)), 'x 1 ' .. v
    end
  elseif r and r.ok then
    if ttl ~= brief then brief, keep = ttl, string.format('%d', KEEP + ttl) end
    local c -- the numbers that were given out so far
    if last <= top or try('SET', KEYS[2], string.format('%d', last + AHEAD)).ok then
      if last > top then top = last + AHEAD end
      c = try('SET', 'holdfast.c:' .. key, us, 'PX', keep, 'GET')
      if type(c) == 'string' then c = tonumber(c) or MOST elseif c == false then c = mark else c = nil end
      if c and c < floor then c = floor end
    end
    if c and c <= last - span then
      word = span > 1 and string.format('%d', last - span + 1) or us
      local line = at ~= '' and try('ZREM', 'holdfast.i:' .. key, ARGV[3])
      if type(line) == 'table' then word, payloads[#payloads + 1] = '?', line.err end
    else
      -- Nobody has seen what was written. The counter must not go back.
      if c then redis.call('SET', 'holdfast.c:' .. key, string.format('%d', c), 'PX', keep) end
      redis.call('DEL', key)
    end
  end
  words[i], i = word, i + 1
end

if n > 1 then words = {table.concat(words, ' ')} end
for k = 1, #payloads do words[1 + k] = payloads[k] end
return words
