// Draws lines on the canvas of a chart, each from times of its own: lines of different devices are never joined into
// one table, which would have a row for every time of any of them.
import type { LineData } from './line-data'

/** A part of the time and of the values, and the pixels of the canvas that show it. */
export interface Frame {
  /** Milliseconds since the epoch. */
  from: number
  to: number
  low: number
  high: number
  left: number
  top: number
  width: number
  height: number
}

type Values = (number | null)[]

export interface Pen {
  colour: string
  dash?: number[]
  /** Pixels of the canvas for each pixel of the page. */
  scale: number
}

const WIDTH = 1.6 // px
const CHUNK = 24 // points that are drawn at once: the cost of a path grows with the square of its length
const DENSE = 1 // points for each pixel from which on columns are drawn
const FAINT = 0.55 // opacity of dense lines that would be dashed
const MARK = 4 // px, half the size of a mark
const POINT = 2.5 // px, radius of a single point
const ROOMY = 12 // px between two points from which on each is drawn

/** The indices of the points from `from` to `to`, and of one more at each side, so that lines reach the edges. */
export function visibleRange(times: number[], from: number, to: number): [number, number] {
  return [Math.max(0, firstNotBefore(times, from) - 1), Math.min(times.length - 1, firstNotBefore(times, to))]
}

/** The least and greatest value between two times; null if there is none. */
export function limitsOf(data: LineData, from: number, to: number): [number, number] | null {
  const [first, last] = visibleRange(data.times, from, to)
  let low = Infinity
  let high = -Infinity
  for (const values of [data.values, data.low, data.high]) {
    if (!values) continue
    for (let at = first; at <= last; at += 1) {
      const value = values[at]
      if (value === null || value === undefined) continue
      if (value < low) low = value
      if (value > high) high = value
    }
  }
  return low <= high ? [low, high] : null
}

/** Draw a line; nulls are gaps. */
export function paintLine(context: CanvasRenderingContext2D, data: LineData, frame: Frame, pen: Pen): void {
  const [first, last] = visibleRange(data.times, frame.from, frame.to)
  if (last - first > DENSE * frame.width) paintColumns(context, data, frame, pen, first, last)
  else paintPath(context, data, frame, pen, first, last)
}

/** Draw each point and the lines between them. Where there is room, points are marked, too. */
function paintPath(
  context: CanvasRenderingContext2D,
  { times, values }: LineData,
  frame: Frame,
  pen: Pen,
  first: number,
  last: number,
): void {
  let path = new Path2D()
  let length = 0
  const paths = [path]
  const points = new Path2D()
  const { x, y } = transforms(frame)
  const radius = POINT * pen.scale
  const hasPoints = (last - first) * ROOMY * pen.scale < frame.width
  let isDrawing = false
  for (let at = first; at <= last; at += 1) {
    const value = values[at]
    if (value === null || value === undefined) {
      isDrawing = false
      continue
    }
    const [px, py] = [x(times[at]!), y(value)]
    if (isDrawing) path.lineTo(px, py)
    else path.moveTo(px, py)
    length += 1
    if (length % CHUNK === 0) {
      paths.push((path = new Path2D()))
      path.moveTo(px, py)
    }
    // A point alone would not be seen.
    if (hasPoints || (!isDrawing && (values[at + 1] ?? null) === null)) {
      points.moveTo(px + radius, py)
      points.arc(px, py, radius, 0, 2 * Math.PI)
    }
    isDrawing = true
  }
  context.strokeStyle = context.fillStyle = pen.colour
  context.lineWidth = WIDTH * pen.scale
  context.lineJoin = 'bevel'
  context.setLineDash((pen.dash ?? []).map((length) => length * pen.scale))
  for (const part of paths) context.stroke(part)
  context.setLineDash([])
  context.fill(points)
}

/**
 * Draw more points than there are pixels: each column from its least to its greatest value, joined to the one before.
 * Upright bars cost a tenth of a line with as many corners.
 */
function paintColumns(
  context: CanvasRenderingContext2D,
  { times, values }: LineData,
  frame: Frame,
  pen: Pen,
  first: number,
  last: number,
): void {
  const { x, y } = transforms(frame)
  const width = Math.max(1, Math.round(pen.scale))
  context.fillStyle = pen.colour
  context.globalAlpha = pen.dash ? FAINT : 1
  const joins = new Path2D()
  let column = NaN
  let [low, high, end] = [NaN, NaN, NaN]
  const paint = (): void => {
    if (low <= high) context.fillRect(column, Math.round(low), width, Math.max(width, Math.round(high - low)))
  }
  for (let at = first; at <= last; at += 1) {
    const value = values[at]
    if (value === null || value === undefined) {
      end = NaN
      continue
    }
    const [px, py] = [Math.floor(x(times[at]!)), y(value)]
    if (px !== column) {
      paint()
      // Between two columns that are apart, the line goes on.
      if (!Number.isNaN(end) && px > column + 1) {
        joins.moveTo(column, end)
        joins.lineTo(px, py)
      }
      column = px
      low = Number.isNaN(end) ? py : Math.min(py, end)
      high = Number.isNaN(end) ? py : Math.max(py, end)
    } else {
      if (!(low <= py)) low = py
      if (!(high >= py)) high = py
    }
    end = py
  }
  paint()
  context.strokeStyle = pen.colour
  context.lineWidth = width
  context.stroke(joins)
  context.globalAlpha = 1
}

/**
 * Mark readings whose quality is not good: a hollow diamond for an uncertain one, a cross for a bad one, at the bottom
 * if it has no value that is in the chart.
 */
export function paintDoubts(
  context: CanvasRenderingContext2D,
  data: LineData,
  frame: Frame,
  pen: Pen & { surface: string },
): void {
  const { x, y } = transforms(frame)
  const size = MARK * pen.scale
  const [diamonds, crosses] = [new Path2D(), new Path2D()]
  for (const { time, value, quality } of data.doubtful) {
    if (time < frame.from || time > frame.to) continue
    const isInside = value !== null && value >= frame.low && value <= frame.high
    const [px, py] = [x(time), isInside ? y(value) : frame.top + frame.height - size - 1]
    if (quality === 'uncertain') {
      diamonds.moveTo(px - size, py)
      for (const [dx, dy] of [
        [0, -size],
        [size, 0],
        [0, size],
      ] as const)
        diamonds.lineTo(px + dx, py + dy)
      diamonds.closePath()
    } else {
      crosses.moveTo(px - size, py - size)
      crosses.lineTo(px + size, py + size)
      crosses.moveTo(px + size, py - size)
      crosses.lineTo(px - size, py + size)
    }
  }
  context.fillStyle = pen.surface
  context.strokeStyle = pen.colour
  context.lineWidth = WIDTH * pen.scale
  context.fill(diamonds)
  context.stroke(diamonds)
  context.stroke(crosses)
}

/** Draw the area between the least and the greatest values of buckets. */
export function paintBand(
  context: CanvasRenderingContext2D,
  data: LineData,
  frame: Frame,
  colour: string,
): void {
  const path = new Path2D()
  const { times } = data
  const [lows, highs]: [Values, Values] = [data.low ?? [], data.high ?? []]
  const [first, last] = visibleRange(times, frame.from, frame.to)
  const { x, y } = transforms(frame)
  let start = first
  for (let at = first; at <= last + 1; at += 1) {
    if (at <= last && lows[at] != null && highs[at] != null) continue
    for (let back = start; back < at; back += 1) {
      if (back === start) path.moveTo(x(times[back]!), y(highs[back]!))
      else path.lineTo(x(times[back]!), y(highs[back]!))
    }
    for (let back = at - 1; back >= start; back -= 1) path.lineTo(x(times[back]!), y(lows[back]!))
    if (at > start) path.closePath()
    start = at + 1
  }
  context.fillStyle = colour
  context.fill(path)
}

function transforms(frame: Frame): { x: (time: number) => number; y: (value: number) => number } {
  const perTime = frame.width / (frame.to - frame.from)
  const perValue = frame.height / (frame.high - frame.low)
  return {
    x: (time) => frame.left + (time - frame.from) * perTime,
    y: (value) => frame.top + (frame.high - value) * perValue,
  }
}

function firstNotBefore(times: number[], wanted: number): number {
  let low = 0
  let high = times.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (times[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}
