import { Problem, UNREACHABLE } from '../api/problem'
import { visible } from '../domain/text'
import { m } from '../messages'

/** Says in a sentence what went wrong, and what helps. */
export function describe(error: unknown): string {
  if (!(error instanceof Problem)) return m.errors.unknown(String(error))
  if (error.status === UNREACHABLE) return m.errors.unreachable
  if (error.status === 401) return error.message
  if (error.status === 403) return m.errors.forbidden(error.message)
  if (error.status === 404) return m.errors.notFound
  if (error.status === 503) return m.errors.unavailable(error.message)
  return visible(error.message)
}
