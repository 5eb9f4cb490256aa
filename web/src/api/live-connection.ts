// One stream of live updates: connects, reads, notices silence, and connects again.
import { eventsOf, type ServerEvent } from './sse'

export interface LiveStatus {
  isLive: boolean
  /** Since when it is so: while live, of the connection; else of the last sign of life. Milliseconds since the epoch. */
  since: number
}

const MOST = 100 // agents that the server follows in detail
const SILENCE = 20_000 // ms without a sign of life, which comes every 2 s, until the connection counts as lost
const PAUSES = [500, 1000, 2000, 5000, 10_000] // ms before each attempt to connect again; the last one repeats

export class LiveConnection {
  #agents: string[] = []
  #attempts = 0
  #abort: AbortController | null = null
  #status: LiveStatus = { isLive: false, since: Date.now() }
  #isRunning = false
  /** Whether the next attempt is made at once. */
  #isHurried = false
  #wake: () => void = () => undefined

  constructor(
    private readonly token: () => Promise<string | null>,
    private readonly onEvent: (event: ServerEvent) => void,
    private readonly onStatus: (status: LiveStatus) => void,
  ) {}

  get status(): LiveStatus {
    return this.#status
  }

  /** Follow these agents in detail from now on, and connect if that was not done yet. */
  follow(agents: string[]): void {
    const wanted = [...new Set(agents)].sort().slice(0, MOST)
    const isSame = wanted.join() === this.#agents.join()
    this.#agents = wanted
    if (!this.#isRunning) void this.#run()
    else if (!isSame) this.#restart()
  }

  /** Try now, for example since the network came back. */
  retry(): void {
    if (!this.#status.isLive) this.#restart()
  }

  /** Begin anew, for example as somebody else. */
  reset(): void {
    this.#restart()
  }

  #restart(): void {
    this.#attempts = 0
    this.#isHurried = true
    this.#abort?.abort()
    this.#wake()
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    for (;;) {
      try {
        await this.#connect()
      } catch {
        // Whatever ended the connection, the next attempt shows whether it is over.
      }
      if (this.#status.isLive) this.#report(false)
      if (!this.#isHurried) await this.#pause(PAUSES[Math.min(this.#attempts++, PAUSES.length - 1)]!)
      this.#isHurried = false
    }
  }

  async #connect(): Promise<void> {
    const abort = (this.#abort = new AbortController())
    const token = await this.token()
    if (!token) return
    const query = new URLSearchParams({ agents: 'all', kinds: 'events', overview: 'true' })
    if (this.#agents.length) query.set('details', this.#agents.join())
    let watchdog = setTimeout(() => abort.abort(), SILENCE)
    try {
      const headers = { Authorization: `Bearer ${token}` }
      const response = await fetch(`/api/v1/live?${query}`, { headers, signal: abort.signal })
      // An agent that is followed has been removed: the others must go on.
      if (response.status === 400 || response.status === 404) this.#agents = []
      if (!response.ok || !response.body) return
      this.#attempts = 0
      for await (const events of eventsOf(response.body)) {
        clearTimeout(watchdog)
        watchdog = setTimeout(() => abort.abort(), SILENCE)
        if (!this.#status.isLive) this.#report(true)
        this.#status.since = Date.now()
        for (const event of events) this.onEvent(event)
      }
    } finally {
      clearTimeout(watchdog)
      abort.abort()
    }
  }

  #report(isLive: boolean): void {
    this.#status = { isLive, since: isLive ? Date.now() : this.#status.since }
    this.onStatus({ ...this.#status })
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds * (0.8 + Math.random() * 0.4))
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
