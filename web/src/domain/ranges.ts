// Ranges of time as they stand in an address: `1h` up to now, or two moments.

export interface Span {
  /** Milliseconds since the epoch. */
  from: number
  to: number
  /** The relative range, such as `1h`; null for one that was chosen. */
  relative: string | null
}

const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 }
export const DEFAULT_RANGE = '1h'

/** The length of a relative range in milliseconds, null if it is none. */
export function lengthOf(text: string): number | null {
  const parts = /^(\d{1,4})([mhd])$/.exec(text)
  return parts ? Number(parts[1]) * UNITS[parts[2]!]! : null
}

/** The range that an address names, at a moment. */
export function spanOf(parameters: URLSearchParams, now: number): Span {
  const from = Date.parse(parameters.get('from') ?? '')
  const to = Date.parse(parameters.get('to') ?? '')
  if (from < to) return { from, to, relative: null }
  const text = parameters.get('range') ?? DEFAULT_RANGE
  const length = lengthOf(text)
  return length
    ? { from: now - length, to: now, relative: text }
    : { from: now - lengthOf(DEFAULT_RANGE)!, to: now, relative: DEFAULT_RANGE }
}

/** How often a range up to now moves on: at most by a pixel or so. Milliseconds. */
export function tickOf(parameters: URLSearchParams): number {
  const length = lengthOf(parameters.get('range') ?? DEFAULT_RANGE) ?? 0
  return Math.min(600_000, Math.max(5000, length / 700))
}

/** The parameters of an address for a chosen range. */
export function chosenRange(from: number, to: number): Record<string, string | null> {
  return { from: new Date(from).toISOString(), to: new Date(to).toISOString(), range: null }
}
