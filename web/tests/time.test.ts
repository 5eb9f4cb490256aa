// Days, ranges and durations are those of the zone, also where clocks change.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { chosenRange, lengthOf, spanOf } from '../src/domain/ranges'
import { ago, dayIn, dayOf, duration, parsed } from '../src/domain/time'

const ZONES = [
  ...['UTC', 'Europe/Berlin', 'America/New_York', 'America/St_Johns', 'Asia/Kathmandu', 'Pacific/Chatham'],
  // Here clocks change at midnight, or by half an hour.
  ...['Africa/Cairo', 'America/Havana', 'America/Santiago', 'Asia/Beirut', 'Australia/Lord_Howe'],
]
const HOUR = 3_600_000
const day = fc
  .date({ min: new Date('2015-01-01'), max: new Date('2035-01-01'), noInvalidDate: true })
  .map((date) => date.toISOString().slice(0, 10))

test('a day has all times of its date in a zone, and no other', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...ZONES),
      day,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (zone, date, part) => {
        const { from, to } = dayIn(zone, date)!
        const within = Math.min(to - 1, from + Math.floor(part * (to - from)))
        expect([dayOf(from, zone), dayOf(within, zone), dayOf(to - 1, zone)]).toEqual([date, date, date])
        expect(dayOf(from - 1, zone) < date && dayOf(to, zone) > date).toBe(true)
        expect((to - from) / HOUR).toBeGreaterThanOrEqual(23)
        expect((to - from) / HOUR).toBeLessThanOrEqual(25)
      },
    ),
    { numRuns: 2000 },
  )
})

test.each([
  ['Europe/Berlin', '2026-03-29', 23],
  ['Europe/Berlin', '2026-10-25', 25],
  ['America/Havana', '2026-03-08', 23],
  ['Africa/Cairo', '2026-04-24', 23],
  ['Australia/Lord_Howe', '2026-10-04', 23.5],
])('in %s the %s has %d hours', (zone, date, hours) => {
  const { from, to } = dayIn(zone, date)!
  expect((to - from) / HOUR).toBe(hours)
})

test('what is no day is none', () => expect(dayIn('UTC', '2026-13-45')).toBeNull())

test('a chosen range is found again in the address', () => {
  const time = fc.integer({ min: 0, max: 4e12 })
  fc.assert(
    fc.property(time, fc.integer({ min: 1, max: 4e10 }), (from, length) => {
      const parameters = Object.entries(chosenRange(from, from + length)).filter(
        ([, value]) => value !== null,
      )
      const span = spanOf(new URLSearchParams(parameters as [string, string][]), 0)
      expect(span).toEqual({ from, to: from + length, relative: null })
    }),
  )
})

test('any address gives a range that ends after it begins', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.string(), (from, to, range) => {
      const span = spanOf(new URLSearchParams({ from, to, range }), 1e12)
      expect(span.from).toBeLessThan(span.to)
    }),
  )
})

test.each([
  ['15m', 900_000],
  ['24h', 86_400_000],
  ['7d', 604_800_000],
  ['1w', null],
  ['', null],
])('the range %s lasts %s ms', (text, length) => expect(lengthOf(text)).toBe(length))

test.each([
  [0, '0 s'],
  [59_499, '59 s'],
  [3_600_000, '1 h'],
  [12_000_000, '3 h 20 min'],
  [90_061_000, '1 d 1 h'],
  [86_400_000 + 60_000, '1 d'],
])('%d ms are %s', (milliseconds, text) => expect(duration(milliseconds)).toBe(text))

test('a time is told from now on, in whole units', () => {
  expect(ago(1000, 2000, 'now')).toBe('now')
  expect(ago(0, 90_000, 'now')).toBe('1 min. ago')
  expect(ago(0, 59_000, 'now')).toBe('59 sec. ago')
  expect(ago(7_200_000, 0, 'now')).toBe('in 2 hr.')
})

test('what is no time is none', () =>
  expect([parsed(null), parsed(''), parsed('soon')]).toEqual([null, null, null]))
