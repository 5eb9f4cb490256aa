// Reads what a chart shows of one series: raw readings of a short range, else averages with the band of min and max.
import { api, contentOf } from '../api/client'
import { gapOf, intervalFor, RAW_POINTS, RAW_RANGE } from '../domain/resolution'

export interface SeriesName {
  agent: string
  metric: string
}

export interface Range {
  /** Milliseconds since the epoch. */
  from: number
  to: number
}

export interface LineData {
  /** Milliseconds since the epoch, ascending. */
  times: number[]
  /** Null is a gap: nothing was measured, or nothing that can be believed. */
  values: (number | null)[]
  /** The least and the greatest value of each bucket; absent for raw readings. */
  low?: (number | null)[]
  high?: (number | null)[]
  /** Readings of a quality other than good: their times and qualities. */
  doubtful: { time: number; value: number | null; quality: string }[]
  /** `raw`, or the interval of the buckets, such as `5m`. */
  resolution: string
  unit: string | null
}

/** Read a series for a chart of a width in pixels; throws `Problem`. */
export async function readLine(
  { agent, metric }: SeriesName,
  range: Range,
  pixels: number,
  zone: string,
  signal?: AbortSignal,
): Promise<LineData> {
  const span = { metric, start: new Date(range.from).toISOString(), end: new Date(range.to).toISOString() }
  const path = { agent }
  if (range.to - range.from <= RAW_RANGE) {
    const query = { ...span, limit: RAW_POINTS }
    const answer = await contentOf(
      api.GET('/api/v1/readings/{agent}/timeseries', { params: { path, query }, signal }),
    )
    const raw = answer as unknown as { readings: RawReading[]; next: string | null }
    if (!raw.next) return rawLine(raw.readings)
  }
  const interval = intervalFor(range.to - range.from, pixels)
  const days = interval.milliseconds >= 86_400_000
  const query = { ...span, interval: interval.text, ...(days ? { tz: zone } : {}) }
  const answer = await contentOf(
    api.GET('/api/v1/readings/{agent}/aggregate', { params: { path, query }, signal }),
  )
  return bucketLine(
    (answer as unknown as { aggregates: Bucket[] }).aggregates,
    interval.milliseconds,
    interval.text,
  )
}

interface RawReading {
  time: string
  value: number | null
  quality: string
  unit: string | null
}

interface Bucket {
  bucket: string
  avg_value: number | null
  min_value: number | null
  max_value: number | null
}

function rawLine(readings: RawReading[]): LineData {
  const measured = readings.map((reading) => Date.parse(reading.time))
  const gap = gapOf(measured)
  const times: number[] = []
  const values: (number | null)[] = []
  const doubtful: LineData['doubtful'] = []
  for (const [at, reading] of readings.entries()) {
    const time = measured[at]!
    if (at > 0 && time - measured[at - 1]! > gap) {
      times.push(measured[at - 1]! + 1)
      values.push(null)
    }
    const isUsable = reading.quality === 'good' || reading.quality === 'uncertain'
    times.push(time)
    values.push(isUsable ? reading.value : null)
    if (reading.quality !== 'good') doubtful.push({ time, value: reading.value, quality: reading.quality })
  }
  return { times, values, doubtful, resolution: 'raw', unit: readings.at(-1)?.unit ?? null }
}

function bucketLine(buckets: Bucket[], step: number, resolution: string): LineData {
  const line: LineData = { times: [], values: [], low: [], high: [], doubtful: [], resolution, unit: null }
  const starts = buckets.map((bucket) => Date.parse(bucket.bucket))
  // What is measured less often than once a bucket has no gap after each reading.
  const gap = Math.max(step * 1.5, starts.length > 2 ? gapOf(starts) : 0)
  let last = -Infinity
  for (const [at, bucket] of buckets.entries()) {
    const time = starts[at]!
    if (time - last > gap && line.times.length) add(line, last + 1, null, null, null)
    add(line, time, bucket.avg_value, bucket.min_value, bucket.max_value)
    last = time
  }
  return line
}

function add(
  line: LineData,
  time: number,
  value: number | null,
  low: number | null,
  high: number | null,
): void {
  line.times.push(time)
  line.values.push(value)
  line.low!.push(low)
  line.high!.push(high)
}
