// Makes a uPlot chart of some lines: colours and fonts from the design tokens, a scale and an axis for each unit.
import uPlot from 'uplot'
import { measured } from '../domain/numbers'
import type { LineData } from './line-data'

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
  width: number
  height: number
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
const AXES = 2 // units that get an axis, at the left and at the right

export function optionsOf(box: HTMLElement, lines: ChartLine[], setup: Setup): uPlot {
  const style = getComputedStyle(box)
  const colour = (name: string): string => style.getPropertyValue(name).trim()
  const font = `12px ${style.fontFamily}`
  const units = [...new Set(lines.map((line) => line.unit ?? ''))]
  const series: uPlot.Series[] = [{}]
  const bands: uPlot.Band[] = []
  for (const line of lines) {
    const stroke = colour(`--line-${(line.colour % 8) + 1}`)
    const scale = line.unit ?? ''
    series.push({ scale, stroke, width: 1.6, dash: line.dash, points: { show: isSparse, size: 5 } })
    if (line.data.low) {
      const edge: uPlot.Series = { scale, stroke: 'transparent', width: 0, points: { show: false } }
      series.push(edge, { ...edge })
      bands.push({ series: [series.length - 1, series.length - 2], fill: `${stroke}2e` })
    }
  }
  const lines_ = { stroke: colour('--text-muted'), font, ticks: { stroke: colour('--border'), size: 5 } }
  return new uPlot(
    {
      width: setup.width,
      height: setup.height,
      tzDate: (time) => uPlot.tzDate(new Date(time * 1e3), setup.zone),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
      scales: { x: { time: true }, ...Object.fromEntries(units.map((unit) => [unit, { auto: true }])) },
      series,
      bands,
      axes: [
        { ...lines_, values: TIMES, space: 70, grid: { stroke: colour('--grid'), width: 1 } },
        ...units.slice(0, AXES).map((unit, at): uPlot.Axis => ({
          ...lines_,
          scale: unit,
          side: at === 0 ? 3 : 1,
          grid: { show: at === 0, stroke: colour('--grid'), width: 1 },
          size: 64,
          label: unit || undefined,
          labelFont: font,
          labelSize: 18,
          values: (_, splits) => splits.map((value) => (value === null ? '' : measured(value))),
        })),
      ],
      hooks: {
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
    [[], ...series.slice(1).map(() => [])] as uPlot.AlignedData,
    box,
  )
}

/** Single points are drawn only where they can be told apart, and where a line would not show them. */
function isSparse(chart: uPlot, seriesIndex: number, from: number, to: number): boolean {
  void seriesIndex
  return to - from < chart.bbox.width / 12
}
