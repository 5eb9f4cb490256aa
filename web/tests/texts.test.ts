// Numbers, differences and sentences say what is so, and nothing that devices send can act in them.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { changes } from '../src/domain/diff'
import { bytes, measured } from '../src/domain/numbers'
import { parts } from '../src/domain/platform-text'
import { visible } from '../src/domain/text'
import { m } from '../src/messages'
import { KINDS } from '../src/messages/en/timeline'

test('a measured value keeps six digits, and whole numbers all of them', () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
      const shown = Number(measured(value))
      const error = Math.abs(shown - value)
      expect(error).toBeLessThanOrEqual(Math.abs(value) * 6e-5)
    }),
  )
  fc.assert(
    fc.property(fc.integer({ min: -(10 ** 14), max: 10 ** 14 }), (value) => {
      expect(measured(value)).toBe(String(value === 0 ? 0 : value))
    }),
  )
  expect([measured(null), measured(21.5), measured(0.1 + 0.2)]).toEqual(['–', '21.5', '0.3'])
})

test('bytes are less than a thousand of their unit', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 ** 15 - 10 ** 12 }), (value) => {
      expect(Number(bytes(value).split(' ')[0])).toBeLessThan(1000)
    }),
  )
  expect([bytes(0), bytes(999), bytes(1500), bytes(999_600), bytes(2_500_000_000)]).toEqual([
    '0 B',
    '999 B',
    '1.5 kB',
    '1.0 MB',
    '2.5 GB',
  ])
})

test('equal documents have no changes, and different ones have the same changes both ways', () => {
  const document = fc.jsonValue({ maxDepth: 3 })
  fc.assert(
    fc.property(document, (one) => {
      expect(changes(one, structuredClone(one))).toEqual([])
    }),
  )
  fc.assert(
    fc.property(document, document, (one, other) => {
      const there = changes(one, other).map((change) => change.path)
      const back = changes(other, one).map((change) => change.path)
      expect(there.sort()).toEqual(back.sort())
    }),
  )
})

test('a change names the endpoint by its name', () => {
  const before = { endpoints: [{ name: 'plc', host: 'a' }, { name: 'meter' }] }
  const after = { endpoints: [{ name: 'meter' }, { name: 'plc', host: 'b' }] }
  expect(changes(before, after)).toEqual([
    { path: 'endpoints[plc].host', kind: 'changed', before: 'a', after: 'b' },
  ])
})

test('a sentence of the platform is kept whole in its parts', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('`', 'a b', '2026-11-28 06:30:00 UTC', '\n', ' ')), (pieces) => {
      const text = pieces.join('')
      const again = parts(text).map(({ kind, text }) => {
        if (kind === 'code') return `\`${text}\``
        return kind === 'time' ? `${text.slice(0, 10)} ${text.slice(11, -1)} UTC` : text
      })
      expect(again.join('')).toBe(text)
    }),
  )
  expect(parts('Run `iotistica keys list`.').map((part) => part.kind)).toEqual(['text', 'code', 'text'])
})

test('nothing that hides or turns text is left in what devices control', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(visible(text)).not.toMatch(/[\u0000-\u0008\u200b-\u200f\u202a-\u202e\u2066-\u2069]/)
    }),
  )
})

test('every event of a timeline is a sentence, whatever its details are', () => {
  const names = [
    'by',
    'changes',
    'name',
    'reason',
    'error',
    'what',
    'first',
    'last',
    'version',
    'rule',
    'value',
  ]
  const details = fc.dictionary(
    fc.constantFrom(...names),
    fc.oneof(fc.jsonValue(), fc.constant([null]), fc.constant({ kind: {} })),
  )
  const kind = fc.constantFrom(...KINDS, 'job.x', 'agent.x_y', 'event.z', 'q')
  fc.assert(
    fc.property(kind, details, (kind, details) => {
      const said = m.timeline.sentence(kind, details)
      // What is sent as text may contain these words itself.
      if (!/undefined|\[object/.test(JSON.stringify(details))) expect(said).not.toMatch(/undefined|\[object/)
      expect(said).not.toBe('')
      expect(m.timeline.group(kind)).not.toBe('')
    }),
  )
  const by = { kind: 'user', name: 'kim@example.com' }
  expect(m.timeline.sentence('target.deployed', { version: 4, by })).toBe(
    'Version 4 of its target was deployed by kim@example.com.',
  )
})

test('a rule is a sentence', () => {
  const sentence = m.rules.sentence
  expect(
    sentence({
      condition: { kind: 'threshold', above: 82 } as never,
      scope: { series: 'b.t' },
      forSeconds: 60,
    }),
  ).toBe('b.t is above 82, for 60 s')
  expect(
    sentence({
      condition: { kind: 'agent', statuses: ['offline'] } as never,
      scope: { fleet: 'x', tags: 'a=b' },
    }),
  ).toBe('an agent of one fleet where a=b is offline')
  for (const kind of Object.keys(m.rules.kinds))
    expect(sentence({ condition: { kind } })).not.toMatch(/undefined|null/)
})
