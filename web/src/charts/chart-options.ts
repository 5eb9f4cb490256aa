// Makes a uPlot chart of some lines: colours and fonts from the design tokens, a scale and an axis for each unit.
import uPlot from 'uplot'
import { measured } from '../domain/numbers'
import type { LineData, Range } from './line-data'
import { limitsOf, paintBand, paintDoubts, paintLine, type Frame } from './line-painter'

export interface ChartLine {
  key: string
  label: string
  unit: string | null
  /** The number of the colour of the line, from 0. */
  colour: number
  dash?: number[]
  /** Milliseconds by which the line is moved to the right, to compare it with a later time. */
  shift?: number
  data: LineData
}

interface Setup {
  range: Range
  width: number
  height: number
  /** Values of the first unit at which a line is drawn across, such as the bounds of a rule. */
  bounds: number[]
  /** Milliseconds since the epoch at which a line is drawn down, such as the beginning of an incident. */
  moments: number[]
  /** Name of the time zone of the axis. */
  zone: string
  /** Milliseconds since the epoch. */
  onselect: (from: number, to: number) => void
  oncursor: (time: number | null) => void
}

// The labels of the time axis by the size of its steps in seconds: a 24-hour clock, the day where it changes.
const TIMES: uPlot.Axis.Values = [
  [86_400 * 365, '{YYYY}', null, null, null, null, null, null, 1],
  [86_400 * 28, '{MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [86_400, '{D} {MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [3600, '{HH}:{mm}', '\n{D} {MMM}', null, '\n{D} {MMM}', null, null, null, 1],
  [60, '{HH}:{mm}', '\n{D} {MMM}', null, '\n{D} {MMM}', null, null, null, 1],
  [1, '{HH}:{mm}:{ss}', '\n{D} {MMM}', null, '\n{D} {MMM}', null, null, null, 1],
  [0.001, '{HH}:{mm}:{ss}.{fff}', null, null, null, null, null, null, 1],
]
const CHARACTER = 7 // px, the width of a digit of a label
const LABEL_PAD = 16 // px beside the longest label of an axis
const NARROW = 480 // px of a chart whose only axis does not name its unit: the legend does
const AXES = 2 // units that get an axis, at the left and at the right

/** Make a chart; `lines` returns the lines with the data that is to be drawn now. */
export function chartOf(box: HTMLElement, lines: () => ChartLine[], setup: Setup): uPlot {
  const style = getComputedStyle(box)
  const colour = (name: string): string => style.getPropertyValue(name).trim()
  const font = `12px ${style.fontFamily}`
  const made = lines()
  const units = [...new Set(made.map((line) => line.unit ?? ''))]
  const isNarrow = setup.width < NARROW
  const shown = { from: 0, to: 0 } // the time of the next frame: values are scaled to it

  // The chart has the axes, the selection and the cursor; the lines are drawn from their own data.
  const series: uPlot.Series[] = [
    {},
    ...made.map((line): uPlot.Series => ({
      scale: line.unit ?? '',
      paths: () => null,
      points: { show: false },
    })),
  ]
  const colours = made.map((line) => colour(`--line-${(line.colour % 8) + 1}`))
  const lines_ = { stroke: colour('--text-muted'), font, ticks: { stroke: colour('--border'), size: 5 } }
  return new uPlot(
    {
      width: setup.width,
      height: setup.height,
      tzDate: (time) => uPlot.tzDate(new Date(time * 1e3), setup.zone),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false } },
      scales: {
        x: {
          time: true,
          range: (_, from, to) => {
            Object.assign(shown, { from: from * 1000, to: to * 1000 })
            return [from, to]
          },
        },
        ...Object.fromEntries(
          units.map((unit): [string, uPlot.Scale] => {
            const range = (): uPlot.Range.MinMax =>
              scaleOf(lines(), unit, unit === units[0] ? setup.bounds : [], shown)
            return [unit, { auto: true, range }]
          }),
        ),
      },
      series,
      axes: [
        { ...lines_, values: TIMES, space: 70, grid: { stroke: colour('--grid'), width: 1 } },
        ...units.slice(0, AXES).map((unit, at): uPlot.Axis => ({
          ...lines_,
          scale: unit,
          side: at === 0 ? 3 : 1,
          grid: { show: at === 0, stroke: colour('--grid'), width: 1 },
          size: (_, values) =>
            LABEL_PAD + CHARACTER * Math.max(0, ...(values ?? []).map((text) => text.length)),
          label: (isNarrow && units.length < 2 ? null : unit) || undefined,
          labelFont: font,
          labelSize: 18,
          values: (_, splits) => splits.map((value) => (value === null ? '' : measured(value))),
        })),
      ],
      hooks: {
        draw: [
          (chart) => {
            paint(chart, lines(), colours, colour('--surface'))
            const red = colour('--critical')
            for (const bound of setup.bounds) paintGuide(chart, { value: bound, scale: units[0] ?? '' }, red)
            for (const moment of setup.moments) paintGuide(chart, { time: moment }, red)
          },
        ],
        setSelect: [
          (chart) => {
            const { left, width } = chart.select
            if (width < 4) return
            const [from, to] = [chart.posToVal(left, 'x'), chart.posToVal(left + width, 'x')]
            chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
            setup.onselect(from * 1000, to * 1000)
          },
        ],
        setCursor: [
          ({ cursor, posToVal }) => {
            const left = cursor.left ?? -1
            setup.oncursor(left < 0 ? null : posToVal(left, 'x') * 1000)
          },
        ],
      },
    },
    emptyData(setup.range, series.length - 1),
    box,
  )
}

/** What the chart itself knows of the data: where its time begins and ends. */
export function emptyData({ from, to }: Range, lines: number): uPlot.AlignedData {
  return [[from / 1000, to / 1000], ...Array.from({ length: lines }, () => [null, null])]
}

/** The scale of a unit, with some room above and below what is visible. */
function scaleOf(
  lines: ChartLine[],
  unit: string,
  bounds: number[],
  { from, to }: Range,
): uPlot.Range.MinMax {
  let [low, high] = [Math.min(...bounds), Math.max(...bounds)]
  for (const line of lines) {
    const shift = line.shift ?? 0
    const limits = (line.unit ?? '') === unit ? limitsOf(line.data, from - shift, to - shift) : null
    if (!limits) continue
    low = Math.min(low, limits[0])
    high = Math.max(high, limits[1])
  }
  return low <= high ? uPlot.rangeNum(low, high, 0.1, true) : [0, 1]
}

function frameOf(chart: uPlot, scale: string, shift: number): Frame {
  const { left, top, width, height } = chart.bbox
  const [x, y] = [chart.scales.x!, chart.scales[scale]!]
  const time = { from: x.min! * 1000 - shift, to: x.max! * 1000 - shift }
  return { ...time, low: y.min ?? 0, high: y.max ?? 1, left, top, width, height }
}

function paint(chart: uPlot, lines: ChartLine[], colours: string[], surface: string): void {
  const { ctx: context, bbox } = chart
  context.save()
  context.beginPath()
  context.rect(bbox.left, bbox.top, bbox.width, bbox.height)
  context.clip()
  for (const [at, line] of lines.entries()) {
    const colour = colours[at]!
    const frame = frameOf(chart, line.unit ?? '', line.shift ?? 0)
    if (line.data.low) paintBand(context, line.data, frame, `${colour}2e`)
    paintLine(context, line.data, frame, { colour, dash: line.dash, scale: uPlot.pxRatio })
    paintDoubts(context, line.data, frame, { colour, scale: uPlot.pxRatio, surface })
  }
  context.restore()
}

type Guide = { value: number; scale: string } | { time: number }

/** Draw a dotted line across the chart at a value, or down at a time. */
function paintGuide(chart: uPlot, guide: Guide, colour: string): void {
  const { ctx: context, bbox } = chart
  // A chart has no scale of values before its first line is there.
  if ('scale' in guide && !chart.scales[guide.scale]) return
  context.save()
  context.strokeStyle = colour
  context.lineWidth = uPlot.pxRatio
  context.setLineDash([2 * uPlot.pxRatio, 3 * uPlot.pxRatio])
  context.beginPath()
  if ('time' in guide) {
    const x = Math.round(chart.valToPos(guide.time / 1000, 'x', true))
    context.moveTo(x, bbox.top)
    context.lineTo(x, bbox.top + bbox.height)
  } else {
    const y = Math.round(chart.valToPos(guide.value, guide.scale, true))
    context.moveTo(bbox.left, y)
    context.lineTo(bbox.left + bbox.width, y)
  }
  context.stroke()
  context.restore()
}
