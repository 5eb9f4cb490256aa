// A long list of which only the pages that are looked at are read: the next one by its cursor, any other by number.
import { Problem, UNREACHABLE } from '../api/problem'

export interface Page<T> {
  rows: T[]
  total: number
  next: string | null
}

export interface PageRequest {
  limit: number
  cursor?: string
  page?: number
}

export const PAGE = 100 // rows
const KEPT = 100 // pages; those farthest from what is looked at are forgotten
const AHEAD = PAGE / 2 // rows that are read before they are looked at

export class PagedList<T> {
  total = $state(0)
  error = $state.raw<Problem>()
  isLoading = $state(true)
  #rows = $state.raw(new Map<number, T[]>())
  #cursors = new Map<number, string>()
  #reading = new Set<number>()
  /** Pages whose rows are of an earlier reading. */
  #stale = new Set<number>()
  #shown: [number, number] = [0, 0]
  #abort = new AbortController()

  constructor(private readonly read: (request: PageRequest, signal: AbortSignal) => Promise<Page<T>>) {}

  /** Read anew; what is shown stays until its new rows are there. */
  async restart({ keep = true } = {}): Promise<void> {
    if (!keep) this.#rows = new Map()
    this.#abort.abort()
    this.#abort = new AbortController()
    this.#cursors.clear()
    this.#reading.clear()
    this.#stale = new Set(this.#rows.keys())
    await this.#load(0)
    // The pages that are looked at are read now, and the others when they are.
    if (!this.#abort.signal.aborted) this.want(this.#shown[0], this.#shown[1])
  }

  /** The row at an index, or undefined while it is being read. */
  at(index: number): T | undefined {
    return this.#rows.get(Math.floor(index / PAGE))?.[index % PAGE]
  }

  /** Read the pages of these rows, unless that was done. */
  want(first: number, last: number): void {
    this.#shown = [first, last]
    const [from, to] = [Math.floor((first - AHEAD) / PAGE), Math.floor((last + AHEAD) / PAGE)]
    for (let page = from; page <= to; page += 1) {
      const isKnown = this.#rows.has(page) && !this.#stale.has(page)
      if (page >= 0 && page * PAGE < this.total && !isKnown) void this.#load(page)
    }
  }

  /** The rows from an index to another, read if they are not known; null if the list was begun anew meanwhile. */
  async rows(first: number, last: number): Promise<T[] | null> {
    const { signal } = this.#abort
    const found: T[] = []
    for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page += 1) {
      const known = this.#stale.has(page) ? undefined : this.#rows.get(page)
      const rows = known ?? (await this.read({ limit: PAGE, page: page + 1 }, signal)).rows
      if (signal.aborted) return null
      found.push(...rows.slice(Math.max(0, first - page * PAGE), last + 1 - page * PAGE))
    }
    return found
  }

  /** The rows that were read. */
  get known(): T[] {
    return [...this.#rows.values()].flat()
  }

  #bounded(rows: Map<number, T[]>): Map<number, T[]> {
    const shown = this.#shown[0] / PAGE
    const farthest = [...rows.keys()].sort((a, b) => Math.abs(b - shown) - Math.abs(a - shown))
    for (const page of farthest.slice(0, Math.max(0, rows.size - KEPT))) rows.delete(page)
    return rows
  }

  async #load(page: number): Promise<void> {
    if (this.#reading.has(page)) return
    this.#reading.add(page)
    this.isLoading = true
    const { signal } = this.#abort
    const cursor = this.#cursors.get(page)
    const request: PageRequest = { limit: PAGE }
    if (cursor) request.cursor = cursor
    else if (page) request.page = page + 1
    try {
      const found = await this.read(request, signal)
      if (signal.aborted) return
      this.#rows = this.#bounded(new Map(this.#rows).set(page, found.rows))
      this.#stale.delete(page)
      this.total = found.total
      this.error = undefined
      if (found.next) this.#cursors.set(page + 1, found.next)
    } catch (failure) {
      if (signal.aborted) return
      this.error = failure instanceof Problem ? failure : new Problem(UNREACHABLE, '', String(failure))
    }
    this.#reading.delete(page)
    this.isLoading = this.#reading.size > 0
  }
}
