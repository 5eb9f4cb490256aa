// Calls the API with the types of its OpenAPI document. An answer that is no success is thrown as a `Problem`.
import createClient, { type Client } from 'openapi-fetch'
import { Problem, problemOf, UNREACHABLE } from './problem'
import type { paths } from './schema'
import { accessToken, refused } from './session.svelte'

/** Routes for who is not logged in. */
const OPEN = /\/auth\/password\/reset$/

/** `fetch` with the access token, which is renewed once if it is refused. */
export async function authorizedFetch(request: Request): Promise<Response> {
  const repeated = request.clone()
  const response = await send(request)
  if (response.status !== 401) return response
  refused(request.headers.get('Authorization')?.slice('Bearer '.length) ?? '')
  return send(repeated)
}

async function send(request: Request): Promise<Response> {
  const token = await accessToken()
  if (token) request.headers.set('Authorization', `Bearer ${token}`)
  else if (!OPEN.test(request.url)) throw new Problem(401, '', '')
  try {
    return await fetch(request)
  } catch (error) {
    if (request.signal.aborted) throw error
    throw new Problem(UNREACHABLE, '', '')
  }
}

async function successfulFetch(request: Request): Promise<Response> {
  const response = await authorizedFetch(request)
  if (!response.ok && response.status !== 304) throw await problemOf(response)
  return response
}

export const api: Client<paths> = createClient<paths>({
  baseUrl: globalThis.location.origin,
  fetch: successfulFetch,
})

/** The content of an answer; the client has thrown if there is none. */
export async function contentOf<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T
}
