// What was on, off or in a mode when: readings become spans of one state each.

export interface StateReading {
  /** Milliseconds since the epoch. */
  time: number
  /** The state as it is shown; null for a reading that cannot be believed. */
  state: string | null
}

export interface StateSpan {
  from: number
  to: number
  state: string
}

const REGULAR = 0.9 // of the steps between readings that are about as long as the others

/**
 * How long a state holds without another reading, in ms: what is measured again and again is unknown in a gap, and what
 * is reported when it changes holds until the next change.
 */
export function holdOf(times: number[]): number {
  const steps = times.slice(1).map((time, at) => time - times[at]!)
  const median = steps.toSorted((a, b) => a - b)[Math.floor(steps.length / 2)]
  if (median === undefined) return Infinity
  const regular = steps.filter((step) => step <= 3 * median && step >= median / 3).length
  return regular >= REGULAR * steps.length && steps.length > 2 ? 5 * median : Infinity
}

/** The spans in which a state lasted; a silence of more than `gap` ms is no state. */
export function spansOf(readings: StateReading[], end: number, gap: number): StateSpan[] {
  const spans: StateSpan[] = []
  for (const [at, { time, state }] of readings.entries()) {
    if (state === null) continue
    const next = readings[at + 1]?.time ?? Math.max(time, end)
    const until = next - time > gap ? time + gap : next
    const last = spans.at(-1)
    if (last && last.state === state && last.to === time) last.to = until
    else spans.push({ from: time, to: until, state })
  }
  return spans
}
