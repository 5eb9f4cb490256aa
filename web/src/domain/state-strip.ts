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

/** The spans of a range in which a state lasted; a silence of more than `gap` ms is no state. */
export function spansOf(readings: StateReading[], end: number, gap: number): StateSpan[] {
  const spans: StateSpan[] = []
  for (const [at, { time, state }] of readings.entries()) {
    if (state === null) continue
    const next = readings[at + 1]?.time ?? end
    const until = next - time > gap ? time + gap : next
    const last = spans.at(-1)
    if (last && last.state === state && last.to === time) last.to = until
    else spans.push({ from: time, to: until, state })
  }
  return spans
}
