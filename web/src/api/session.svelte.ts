// Who is logged in. The refresh token is in a cookie that scripts cannot read; the access token is only in memory.
import { problemOf, Problem, UNREACHABLE } from './problem'
import type { Session, UserView } from './schema'

export type User = UserView

const EARLY = 60_000 // ms before its end at which an access token is renewed
const CHANNEL = 'iotistica-session'
/** In the local storage while there should be a cookie, so that nobody is asked in vain. */
const HINT = 'iotistica-session'

interface Token {
  text: string
  /** Milliseconds since the epoch. */
  endsAt: number
}

type Message = { token: Token; user: User; permissions: string[] } | 'logged out'

export const session = $state<{
  state: 'starting' | 'out' | 'in'
  user: User | null
  /** What the user's role allows. */
  permissions: string[]
}>({ state: 'starting', user: null, permissions: [] })

/** Whether somebody may do something; the server decides, and the page only does not offer in vain. */
export function may(permission: string): boolean {
  return session.permissions.includes(permission)
}

let token: Token | null = null
let renewing: Promise<Token | null> | null = null
// Tabs give each other their tokens, so that one of them renews it for all.
const channel = new BroadcastChannel(CHANNEL)

channel.onmessage = ({ data }: MessageEvent<Message>) => {
  if (data === 'logged out') {
    end()
  } else {
    token = data.token
    Object.assign(session, { state: 'in', user: data.user, permissions: data.permissions })
  }
}

function told(token: Token, user: User, permissions: string[]): Message {
  return { token, user: $state.snapshot(user), permissions: $state.snapshot(permissions) }
}

function isFresh(token: Token): boolean {
  return token.endsAt - Date.now() > EARLY
}

function end(): void {
  token = null
  localStorage.removeItem(HINT)
  Object.assign(session, { state: 'out', user: null, permissions: [] })
}

/** Take over a session that the API has just opened or renewed. */
export function begin(opened: Session): Token {
  token = { text: opened.accessToken, endsAt: Date.now() + opened.expiresIn * 1000 }
  const { user, permissions } = opened
  Object.assign(session, { state: 'in', user, permissions })
  channel.postMessage(told(token, user, permissions))
  localStorage.setItem(HINT, 'yes')
  return token
}

/** Find out whether this browser is logged in. */
export async function start(): Promise<void> {
  const mayBeIn = localStorage.getItem(HINT) !== null
  if (!(mayBeIn && (await renew())) && session.state === 'starting') session.state = 'out'
}

/** A token that is valid for a minute at least, or null if nobody is logged in. Throws `Problem` without an answer. */
export async function accessToken(): Promise<string | null> {
  if (token && isFresh(token)) return token.text
  return (await renew())?.text ?? null
}

/** Forget a token that the API has refused. */
export function refused(text: string): void {
  if (token?.text === text) token = null
}

function renew(): Promise<Token | null> {
  if (session.state === 'out') return Promise.resolve(null)
  renewing ??= alone(requestToken).finally(() => (renewing = null))
  return renewing
}

/** Do something in one tab at a time, where the browser can (only with https or on this machine). */
async function alone(work: () => Promise<Token | null>): Promise<Token | null> {
  if (!('locks' in navigator)) return work()
  return navigator.locks.request(CHANNEL, async () => (token && isFresh(token) ? token : work()))
}

async function requestToken(): Promise<Token | null> {
  const response = await post('/api/v1/auth/refresh', {})
  if (response.ok) return begin((await response.json()) as Session)
  if (response.status === 401) {
    end()
    return null
  }
  throw await problemOf(response)
}

/** Log in with what a form or a link has; throws `Problem`. */
export async function logIn(
  path: '/auth/login' | '/auth/login/link' | '/auth/invitations/accept',
  facts: object,
): Promise<void> {
  const response = await post(`/api/v1${path}`, { ...facts, cookie: true })
  if (!response.ok) throw await problemOf(response)
  begin((await response.json()) as Session)
}

/** End this session in all tabs. */
export async function logOut(): Promise<void> {
  const text = await accessToken()
  const response = text ? await post('/api/v1/auth/logout', {}, text) : null
  if (response && !response.ok && response.status !== 401) throw await problemOf(response)
  channel.postMessage('logged out')
  end()
}

async function post(path: string, body: object, bearer?: string): Promise<Response> {
  const headers: Record<string, string> = { 'Content-Type': 'application/json' }
  if (bearer) headers.Authorization = `Bearer ${bearer}`
  try {
    return await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) })
  } catch {
    throw new Problem(UNREACHABLE, '', '')
  }
}
