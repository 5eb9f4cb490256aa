// What happened to an agent, as sentences: one for each kind of event of docs/http.md#timeline.
import { plural } from './common'

/** The details of an event; text in it can come from the device, so that whoever shows a sentence escapes it. */
export interface Details {
  [name: string]: unknown
}

const text = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? `${value}` : ''
const number = (value: unknown): number => (typeof value === 'number' ? value : 0)
const quoted = (value: unknown): string => (text(value) ? ` “${text(value)}”` : '')
const because = (value: unknown): string => (text(value) ? `: ${text(value)}` : '')

/** Who did it: the name, or what kind of actor it was. */
const by = (details: Details): string => {
  const actor = details.by
  if (typeof actor !== 'object' || actor === null) return ''
  const { kind, name } = actor as Details
  if (typeof kind !== 'string' || kind === 'agent') return ''
  const kinds: Record<string, string> = { platform: 'the platform', anybody: 'somebody without credentials' }
  return ` by ${text(name) || kinds[kind] || kind}`
}

const changes = (details: Details): string => {
  const list = Array.isArray(details.changes) ? (details.changes as ({ path?: unknown } | null)[]) : []
  const shown = list.slice(0, 3).map((change) => text(change?.path))
  return `${shown.join(', ')}${list.length > 3 ? ` and ${list.length - 3} more` : ''}`
}

const job = (said: string) => (details: Details) =>
  `The job${quoted(details.name)} ${said}${because(details.reason)}.`

const sentences: Record<string, (details: Details) => string> = {
  'presence.online': (details) =>
    details.before
      ? 'It sends data again, and is online.'
      : 'It sends data for the first time, and is online.',
  'presence.silent': () => 'It is in touch, but sends no data.',
  'presence.offline': () => 'Nothing is heard of it: it is offline.',
  'presence.flapping': () => 'It comes and goes. Single changes are not listed until it is steady.',
  'presence.steady': (details) => `It no longer comes and goes, and is ${text(details.status)}.`,
  'presence.healed': (details) => `It was to connect anew: ${text(details.outcome)}.`,
  'broker.connected': (details) => `It connected to the broker from ${text(details.address)}.`,
  'broker.left': (details) => `Its connection to the broker ended: it ${text(details.reason)}.`,
  'broker.let_in': () => 'The broker let it in.',
  'broker.refused': (details) => `The broker refused its log-in${because(details.reason)}.`,
  'broker.denied': (details) =>
    text(details.topic)
      ? `The broker denied it the topic ${text(details.topic)}, which is not its own.`
      : 'The broker closed the connection after a message to a topic that is not its own.',
  'broker.taken_over': () => 'Another client with the same account ended its connection.',
  'target.written': (details) => `Version ${text(details.version)} of its target was written${by(details)}.`,
  'target.deployed': (details) =>
    `Version ${text(details.version)} of its target was deployed${by(details)}.`,
  'target.fetched': (details) => `It fetched version ${text(details.version)} of its target.`,
  'target.reported': (details) => `It reports to run version ${text(details.version)} of its target.`,
  'state.failing': (details) => `It reports that ${text(details.what)} fails${because(details.error)}.`,
  'state.recovered': (details) => `It reports that ${text(details.what)} works again.`,
  'state.changed': (details) => `It reports a change of ${changes(details)}.`,
  'job.queued': (details) => `The job${quoted(details.name)} waits for it.`,
  'job.started': job('began'),
  'job.succeeded': job('succeeded'),
  'job.failed': job('failed'),
  'job.rejected': job('was rejected by the agent'),
  'job.canceled': job('was canceled'),
  'job.timed_out': job('did not end in time'),
  'job.unbegun': job('was not begun in time'),
  'message.refused': (details) => `A message could not be read${because(details.detail ?? details.reason)}.`,
  'readings.rejected': (details) => `Readings were rejected${because(details.reason)}.`,
  'readings.erased': (details) => `Readings were erased${by(details)}.`,
  'logs.dropped': (details) =>
    `The agent discarded ${plural(number(details.lines), 'log line', 'log lines')}.`,
  'messages.missing': (details) =>
    `${plural(number(details.last) - number(details.first) + 1, 'message', 'messages')} never arrived.`,
  'messages.found': (details) =>
    `${plural(number(details.last) - number(details.first) + 1, 'missing message', 'missing messages')} arrived after all.`,
  'clock.ahead': (details) => `Its clock is ${text(details.seconds)} s ahead.`,
  'clock.behind': (details) => `Its clock is ${text(details.seconds)} s behind.`,
  'alert.began': (details) =>
    `The rule${quoted(details.rule)} fires for ${text(details.about) || 'it'}${
      'value' in details ? `, at ${text(details.value)}` : ''
    }.`,
  'alert.ended': (details) =>
    `The rule${quoted(details.rule)} no longer fires for ${text(details.about) || 'it'}.`,
  'agent.added': (details) => `It was added${by(details)}.`,
  'agent.registered': () => 'It registered with a provisioning key.',
  'agent.registration_refused': () => 'A registration under its UUID was refused.',
  'agent.proven': () => 'It proved that it holds its private key.',
  'agent.key_rotated': (details) => `Its API key was replaced${by(details)}.`,
  'agent.key_adopted': () => 'It uses its new API key; the old one is void.',
  'agent.changed': (details) => `Its properties were changed${by(details)}.`,
  'agent.revoked': (details) => `It was locked out${by(details)}.`,
  'agent.re_enrolled': (details) => `It was allowed to register again${by(details)}.`,
  'agent.retired': (details) => `It was taken out of service for good${by(details)}.`,
  'agent.replaced': (details) => `Another agent took its place${by(details)}.`,
  'agent.inherited': (details) => `It took the place of another agent${by(details)}.`,
  'agent.update_commanded': (details) =>
    `It was told to update its software to ${text(details.version)}${by(details)}.`,
  'agent.update_succeeded': (details) => `Its software was updated to ${text(details.version)}.`,
  'agent.update_failed': (details) =>
    `The update of its software failed${because(details.reason ?? details.error)}.`,
  'agent.update_expired': () => 'The update of its software was not begun in time.',
  'agent.update_timed_out': () => 'The update of its software did not end in time.',
  'agent.startup': () => 'The agent started.',
}

/** The first words of kinds, for filters and labels. */
const groups: Record<string, string> = {
  presence: 'Presence',
  broker: 'Broker',
  target: 'Target',
  state: 'Reported state',
  job: 'Job',
  agent: 'Identity',
  alert: 'Alert',
  event: 'Event of the agent',
  message: 'Message refused',
  messages: 'Message numbers',
  readings: 'Readings',
  logs: 'Logs',
  clock: 'Clock',
}

/** The kinds of which there are sentences. */
export const KINDS = Object.keys(sentences)

export const timeline = {
  groups,
  all: 'Everything',
  group: (kind: string): string => groups[kind.split('.', 1)[0] ?? ''] ?? kind,
  sentence(kind: string, details: Details): string {
    const known = sentences[kind]
    if (known) return known(details)
    if (kind.startsWith('event.')) return text(details.text) || kind.slice('event.'.length)
    if (kind.startsWith('job.')) return job(kind.slice('job.'.length).replaceAll('_', ' '))(details)
    const word = kind.split('.').slice(1).join('.').replaceAll('_', ' ')
    return `The agent reports ${word || kind}${because(details.reason ?? details.message)}.`
  },
}
