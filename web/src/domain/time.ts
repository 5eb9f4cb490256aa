// How times are written: in the viewer's zone, or another that was chosen, which is always shown.

export const OWN_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_557_600],
  ['month', 2_629_800],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
  ['second', 1],
]
const DAY = 86_400_000
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: 'always', style: 'short' })

/** Milliseconds since the epoch of a time that the API sent; null for no time. */
export function parsed(time: string | null | undefined): number | null {
  if (!time) return null
  const found = Date.parse(time)
  return Number.isNaN(found) ? null : found
}

/** A time from now, such as "5 min. ago"; what is less than two seconds away is `now`. */
export function ago(time: number, now: number, nowWord: string): string {
  const seconds = (time - now) / 1000
  if (Math.abs(seconds) < 2) return nowWord
  const [unit, size] = STEPS.find(([, size]) => Math.abs(seconds) >= size) ?? STEPS.at(-1)!
  return relative.format(Math.trunc(seconds / size), unit)
}

/** Where a calendar day begins and ends in a zone, in milliseconds since the epoch; null for no day. */
export function dayIn(zone: string, day: string): { from: number; to: number } | null {
  const midnight = Date.parse(`${day}T00:00:00Z`)
  if (Number.isNaN(midnight)) return null
  return { from: startOf(zone, midnight), to: startOf(zone, midnight + DAY) }
}

/**
 * The first moment of the day with this midnight in UTC. Where clocks change at midnight, it is missing or comes twice,
 * so that of the offsets around it the one counts before which it was another day.
 */
function startOf(zone: string, midnight: number): number {
  const day = new Date(midnight).toISOString().slice(0, 10)
  const starts = [midnight - DAY, midnight + DAY].map((near) => midnight - offsetOf(zone, near))
  const isStart = (start: number): boolean => dayOf(start, zone) === day && dayOf(start - 1, zone) < day
  return starts.find(isStart) ?? starts[1]!
}

/** The calendar day of a time in a zone, such as `2026-11-24`. */
export function dayOf(time: number, zone: string): string {
  return new Date(time + offsetOf(zone, time)).toISOString().slice(0, 10)
}

/** How far the clocks of a zone are ahead of UTC at a time, in milliseconds. */
function offsetOf(zone: string, time: number): number {
  const parts = Object.fromEntries(
    format(zone, {
      ...{ year: 'numeric', month: 'numeric', day: 'numeric', calendar: 'iso8601', numberingSystem: 'latn' },
      ...{ hour: 'numeric', minute: 'numeric', second: 'numeric', hourCycle: 'h23' },
    })
      .formatToParts(time)
      .map((part) => [part.type, Number(part.value)]),
  ) as Record<string, number>
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(time / 1000) * 1000
}

/** How long something lasts, with its two largest units: "3 h 20 min". */
export function duration(milliseconds: number): string {
  let seconds = Math.max(0, Math.round(milliseconds / 1000))
  const parts: string[] = []
  for (const [name, size] of [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ] as const) {
    const number = Math.floor(seconds / size)
    seconds -= number * size
    if (number) parts.push(`${number} ${name}`)
    if (parts.length === 2 || (parts.length && !number)) break
  }
  return parts.join(' ') || '0 s'
}

const formats = new Map<string, Intl.DateTimeFormat>()

function format(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = zone + JSON.stringify(options)
  const found = formats.get(key) ?? new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options })
  formats.set(key, found)
  return found
}

/** A time to the second with its zone, such as "27 Nov 2026, 14:03:22 CET". */
export function exact(time: number, zone = OWN_ZONE): string {
  return format(zone, {
    day: 'numeric',
    month: 'short',
    year: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
    timeZoneName: 'short',
  }).format(time)
}

/** A time of day to the second, such as "14:03:22". */
export function clock(time: number, zone = OWN_ZONE): string {
  return format(zone, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }).format(
    time,
  )
}

/** A day and time to the minute, such as "27 Nov, 14:03". */
export function minute(time: number, zone = OWN_ZONE): string {
  return format(zone, {
    day: 'numeric',
    month: 'short',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  }).format(time)
}

/** A day in brief, such as "Tue, 24 Nov". */
export function shortDay(time: number, zone = OWN_ZONE): string {
  return format(zone, { weekday: 'short', day: 'numeric', month: 'short' }).format(time)
}

/** A day with its weekday, such as "Tuesday, 24 November 2026". */
export function weekday(time: number, zone = OWN_ZONE): string {
  return format(zone, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' }).format(time)
}
