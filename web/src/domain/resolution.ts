// How finely a range of time is drawn: never more points than the screen has room for.

const SECOND = 1000
const LADDER: [string, number][] = [
  ...([1, 2, 5, 10, 15, 30].map((n) => [`${n}s`, n * SECOND]) as [string, number][]),
  ...([1, 2, 5, 10, 15, 30].map((n) => [`${n}m`, n * 60 * SECOND]) as [string, number][]),
  ...([1, 2, 3, 6, 12].map((n) => [`${n}h`, n * 3600 * SECOND]) as [string, number][]),
  ['1d', 86_400 * SECOND],
  ['1w', 7 * 86_400 * SECOND],
]

export interface Interval {
  /** As the API takes it, such as `5m`. */
  text: string
  milliseconds: number
}

/** The finest interval with at most one bucket for every two pixels. */
export function intervalFor(range: number, pixels: number): Interval {
  const wanted = range / Math.max(50, pixels / 2)
  const [text, milliseconds] = LADDER.find(([, size]) => size >= wanted) ?? LADDER.at(-1)!
  return { text, milliseconds }
}

/** Ranges of at most this length are first tried as raw readings. Milliseconds. */
export const RAW_RANGE = 2 * 3600 * SECOND
/** Raw readings that are drawn one by one at most. */
export const RAW_POINTS = 10_000

/** Where a line of raw readings breaks: a silence of more than five times the usual step. Milliseconds. */
export function gapOf(times: number[]): number {
  const steps = times.slice(1).map((time, at) => time - times[at]!)
  steps.sort((a, b) => a - b)
  return 5 * (steps[Math.floor(steps.length / 2)] ?? Infinity)
}
