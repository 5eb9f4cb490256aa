// How finely lines are drawn, where they break, and what a state lasted.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { limitsOf, visibleRange } from '../src/charts/line-painter'
import { boundsOf, type Condition } from '../src/domain/conditions'
import { gapOf, intervalFor } from '../src/domain/resolution'
import { holdOf, spansOf } from '../src/domain/state-strip'

const WEEK = 7 * 86_400_000
const times = fc
  .uniqueArray(fc.integer({ min: 0, max: 1_000_000 }), { maxLength: 60 })
  .map((list) => list.sort((a, b) => a - b))

test('buckets are at least two pixels wide, unless a week is too fine for the range', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1000, max: 1000 * WEEK }),
      fc.integer({ min: 100, max: 4000 }),
      (range, width) => {
        const { milliseconds } = intervalFor(range, width)
        expect(milliseconds === WEEK || range / milliseconds <= width / 2).toBe(true)
      },
    ),
  )
})

test('what is drawn reaches one point beyond each edge', () => {
  fc.assert(
    fc.property(times, fc.nat(1_000_000), fc.nat(1_000_000), (list, a, b) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b)]
      const [first, last] = visibleRange(list, from, to)
      const inside = list.flatMap((time, at) => (time >= from && time <= to ? [at] : []))
      for (const at of inside) expect(at >= first && at <= last).toBe(true)
      expect(first === 0 || list[first - 1]! < from).toBe(true)
    }),
  )
})

test('the limits hold every value that is seen, those of the band too', () => {
  const line = { doubtful: [], resolution: 'raw', unit: null }
  const data = {
    ...line,
    times: [0, 1, 2, 3],
    values: [1, null, 5, 2],
    low: [0, null, -4, 2],
    high: [2, null, 9, 2],
  }
  expect(limitsOf(data, 0, 3)).toEqual([-4, 9])
  expect(limitsOf({ ...line, times: [0], values: [null] }, 0, 1)).toBeNull()
})

test('a line breaks after five times the usual silence', () => {
  expect(gapOf([0, 10, 20, 30, 500])).toBe(50)
  expect(gapOf([7])).toBe(Infinity)
})

test('what is measured again and again is unknown in a gap; what is reported when it changes holds', () => {
  expect(holdOf([0, 10, 20, 30, 40])).toBe(50)
  expect(holdOf([0, 10, 4000, 4010, 90_000])).toBe(Infinity)
  expect(holdOf([3])).toBe(Infinity)
})

test('spans of states follow each other without overlaps, and each reading is in its own', () => {
  const state = fc.constantFrom('on', 'off', null)
  fc.assert(
    fc.property(
      times,
      fc.array(state, { minLength: 60, maxLength: 60 }),
      fc.nat(500_000),
      (list, states, gap) => {
        const readings = list.map((time, at) => ({ time, state: states[at]! }))
        const spans = spansOf(readings, 1_000_000, gap)
        for (const [at, span] of spans.entries()) {
          expect(span.from).toBeLessThanOrEqual(span.to)
          const next = spans[at + 1]
          if (next) expect(next.from > span.to || next.state !== span.state).toBe(true)
          if (next) expect(next.from).toBeGreaterThanOrEqual(span.to)
        }
        for (const { time, state } of readings) {
          if (state === null) continue
          expect(spans.some((span) => span.state === state && span.from <= time && time <= span.to)).toBe(
            true,
          )
        }
      },
    ),
  )
})

test('the bounds of a rule are drawn where they are the same for all series', () => {
  const above: Condition = { kind: 'threshold', above: 82, below: null, clearBelow: 80 }
  const outside: Condition = { ...above, below: 0 }
  const rising: Condition = { ...above, kind: 'rate' }
  expect(boundsOf({ condition: above })).toEqual([82])
  expect(boundsOf({ condition: outside, limits: [] })).toEqual([82, 0])
  expect(boundsOf({ condition: above, limits: [{ tags: 'hall=3', above: 90 }] })).toEqual([])
  expect(boundsOf({ condition: rising })).toEqual([])
})
