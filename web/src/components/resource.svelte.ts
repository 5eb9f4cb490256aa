// Something that is read from the API and shown: its data stays visible while it is read again.
import { Problem, UNREACHABLE } from '../api/problem'

export interface Resource<T> {
  readonly data: T | undefined
  readonly error: Problem | undefined
  readonly isLoading: boolean
  /** Read again; with `keep: false` what was shown before is forgotten. */
  reload(options?: { keep?: boolean }): Promise<void>
  /** Show something that is known without reading, for example the answer to a change. */
  set(data: T): void
  /** Show something in place of the data, while a reading that may be under way goes on. */
  patch(data: T): void
}

/**
 * Reads whenever what `read` depends on changes; an answer that was overtaken is dropped. Data of another selection
 * (`key` says which) is never shown.
 */
export function resource<T>(
  read: (signal: AbortSignal) => Promise<T>,
  key: () => unknown = () => null,
): Resource<T> {
  let data = $state.raw<T>()
  let error = $state.raw<Problem>()
  let isLoading = $state(true)
  let abort = new AbortController()

  async function load(): Promise<void> {
    abort.abort()
    const own = (abort = new AbortController())
    isLoading = true
    try {
      const found = await read(own.signal)
      if (own.signal.aborted) return
      data = found
      error = undefined
    } catch (failure) {
      if (own.signal.aborted) return
      error = failure instanceof Problem ? failure : new Problem(UNREACHABLE, '', String(failure))
    }
    isLoading = false
  }

  let shownKey: unknown
  $effect(() => {
    const wanted = JSON.stringify(key())
    if (shownKey !== undefined && wanted !== shownKey) {
      data = undefined
      error = undefined
    }
    shownKey = wanted
    void load()
    return () => abort.abort()
  })

  return {
    get data() {
      return data
    },
    get error() {
      return error
    },
    get isLoading() {
      return isLoading
    },
    async reload({ keep = true } = {}) {
      if (!keep) data = undefined
      await load()
    },
    patch(found) {
      data = found
    },
    set(found) {
      abort.abort()
      data = found
      error = undefined
      isLoading = false
    },
  }
}
