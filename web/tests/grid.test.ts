// Panels never cover each other and never leave the grid, whatever is done to them.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { arranged, COLUMNS, exchanged, placed, readingOrder, rowsOf, type Place } from '../src/domain/grid'

const place = fc
  .record({
    x: fc.nat(COLUMNS - 1),
    y: fc.nat(30),
    width: fc.integer({ min: 1, max: COLUMNS }),
    height: fc.integer({ min: 1, max: 10 }),
  })
  .map((one) => ({ ...one, x: Math.min(one.x, COLUMNS - one.width) }))
const places = fc.array(place, { minLength: 1, maxLength: 12 })
const move = fc.record({
  index: fc.nat(),
  wanted: fc.record(
    { x: fc.integer(), y: fc.integer(), width: fc.integer(), height: fc.integer() },
    { requiredKeys: [] },
  ),
})

const overlap = (a: Place, b: Place): boolean =>
  a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height

function check(panels: Place[]): void {
  for (const [at, panel] of panels.entries()) {
    expect(panel.x).toBeGreaterThanOrEqual(0)
    expect(panel.x + panel.width).toBeLessThanOrEqual(COLUMNS)
    const others = panels.filter((_, other) => other !== at)
    expect(others.some((other) => overlap(panel, other))).toBe(false)
    const raised = { ...panel, y: panel.y - 1 }
    expect(panel.y === 0 || others.some((other) => overlap(raised, other))).toBe(true)
  }
}

test('panels stay within the grid, apart from each other and as far up as they go', () => {
  fc.assert(
    fc.property(places, fc.array(move, { maxLength: 8 }), (start, moves) => {
      let panels: Place[] = arranged(start)
      check(panels)
      for (const { index, wanted } of moves) {
        panels = placed(panels, index % panels.length, wanted)
        check(panels)
      }
      expect(rowsOf(panels)).toBeLessThanOrEqual(panels.reduce((sum, panel) => sum + panel.height, 0))
    }),
  )
})

test('what was moved goes where it was put, and the others make way', () => {
  const row = [0, 1, 2].map((y) => ({ x: 0, y, width: 4, height: 1 }))
  expect(placed(row, 2, { y: 0 }).map((panel) => panel.y)).toEqual([1, 2, 0])
})

test('arranging what is arranged changes nothing', () => {
  fc.assert(
    fc.property(places, (start) => {
      expect(arranged(arranged(start))).toEqual(arranged(start))
    }),
  )
})

test('a panel changes places with the one before it, and comes back', () => {
  fc.assert(
    fc.property(places, fc.nat(), (start, number) => {
      const panels = arranged(start)
      const index = number % panels.length
      check(exchanged(panels, index, -1))
      check(exchanged(panels, index, 1))
    }),
  )
  const rows = [3, 1, 2].map((height, y) => ({ x: 0, y: [0, 3, 4][y]!, width: COLUMNS, height }))
  expect(readingOrder(exchanged(rows, 2, -1))).toEqual([0, 2, 1])
  expect(exchanged(exchanged(rows, 2, -1), 2, 1)).toEqual(rows)
  expect(exchanged(rows, 0, -1)).toEqual(rows)
})
