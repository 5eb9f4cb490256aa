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
