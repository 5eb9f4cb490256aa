// How numbers are written.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 })
const short = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 })
const BYTES = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']

/** A count with the separators of the viewer's language. */
export function count(value: number): string {
  return whole.format(value)
}

/** A count in little space, such as 1.2M. */
export function compact(value: number): string {
  return Math.abs(value) < 10_000 ? whole.format(value) : short.format(value)
}

/** A rate: with a decimal below ten. */
export function rate(value: number): string {
  return value > 0 && value < 10 ? value.toFixed(1) : compact(value)
}

/** A measured value as it was sent: up to 6 significant digits, and nothing rounded away of whole numbers. */
export function measured(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? String(value) : value.toExponential(6)
  const size = Math.abs(value)
  if (size >= 1e9 || size < 1e-4) return value.toExponential(4)
  return String(Number(value.toPrecision(6)))
}

/** A number of bytes in powers of 1000. */
export function bytes(value: number): string {
  let step = 0
  let left = value
  while (Math.abs(left) >= 999.5 && step < BYTES.length - 1) {
    left /= 1000
    step += 1
  }
  return `${step && left < 100 ? left.toFixed(1) : Math.round(left)} ${BYTES[step]}`
}
