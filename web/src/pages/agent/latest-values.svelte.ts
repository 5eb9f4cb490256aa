// The newest value of each series of an agent, and how it went since the page was opened.
import { api, contentOf } from '../../api/client'
import { onLive, type LiveReading } from '../../api/live.svelte'
import { resource } from '../../components/resource.svelte'

const KEPT = 60 // points of each series
const SERIES = 1000 // series that are shown

export interface LatestValue {
  name: string
  value: number | null
  text: string | null
  unit: string | null
  quality: string
  /** Milliseconds since the epoch. */
  time: number
  points: { at: number; value: number | null }[]
}

export class LatestValues {
  readonly rows: LatestValue[] = $derived.by(() =>
    [...this.#values.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true })),
  )
  #values = $state.raw(new Map<string, LatestValue>())
  #waiting: LiveReading[] = []
  #frame = 0
  readonly first

  constructor(uuid: () => string) {
    this.first = resource(
      async (signal) => {
        const params = { path: { agent: uuid() }, query: { limit: SERIES } }
        const latest = await contentOf(api.GET('/api/v1/readings/{agent}/latest', { params, signal }))
        this.#take(latest.readings as unknown as LiveReading[])
        return latest.count
      },
      () => uuid(),
    )
    $effect(() => {
      const agent = uuid()
      const end = onLive('readings', (news) => {
        if (news.agentUuid !== agent) return
        this.#waiting.push(...news.readings)
        // Many messages of one moment are drawn once.
        this.#frame ||= requestAnimationFrame(() => {
          this.#frame = 0
          this.#take(this.#waiting.splice(0))
        })
      })
      return () => {
        end()
        cancelAnimationFrame(this.#frame)
        this.#frame = 0
        this.#values = new Map()
      }
    })
  }

  #take(readings: LiveReading[]): void {
    const values = new Map(this.#values)
    for (const reading of readings) {
      const time = Date.parse(reading.time)
      const known = values.get(reading.metric_name)
      if (known && known.time >= time) continue // messages can come in another order than they were measured in
      const isUsable = reading.quality === 'good' || reading.quality === 'uncertain'
      const point = { at: time, value: isUsable ? reading.value : null }
      const extra = (reading as { extra?: Record<string, unknown> }).extra
      values.set(reading.metric_name, {
        name: reading.metric_name,
        value: reading.value,
        text: typeof extra?.text === 'string' ? extra.text : null,
        unit: reading.unit,
        quality: reading.quality,
        time,
        points: [...(known?.points ?? []).slice(1 - KEPT), point],
      })
    }
    this.#values = values
  }
}
