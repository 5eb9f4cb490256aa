import { plural } from './common'

const bounds = ({ above, below }: Record<string, unknown>, unit = ''): string =>
  [
    ...(above == null ? [] : [`above ${String(above)}${unit}`]),
    ...(below == null ? [] : [`below ${String(below)}${unit}`]),
  ].join(' or ') || 'at any value'
const listed = (words: unknown): string => (Array.isArray(words) ? words.join(' or ').toLowerCase() : '')

/** When a rule fires, by the kind of its condition, as the end of a sentence that begins with what is watched. */
const conditions: Record<string, (condition: Record<string, unknown>) => string> = {
  threshold: (one) => `is ${bounds(one)}`,
  rate: (one) => `changes by ${bounds(one)} per ${String(one.per ?? 'minute')}`,
  anomaly: (one) => `is unusual (score ${String(one.score ?? 0.93)})`,
  absence: () => 'sends nothing',
  stuck: () => 'does not move',
  quality: (one) => `is of ${listed(one.qualities)} quality`,
  comparison: (one) =>
    `differs from ${String(one.other ?? 'another series')}: ${String(one.as ?? 'difference')} ${bounds(one)}`,
  agent: (one) => `is ${listed(one.statuses)}`,
  job: (one) => `ends a job as ${listed(one.statuses).replaceAll('_', ' ')}`,
  deadLetters: (one) =>
    `has ${plural(Number(one.count ?? 1), 'refused message', 'refused messages')} or more`,
  platform: () => 'raises an alarm',
}
const watched: Record<string, string> = {
  agent: 'an agent',
  job: 'an agent',
  deadLetters: 'an agent',
  platform: 'the platform',
}

interface SaidRule {
  condition: { kind: string }
  scope?: Partial<Record<'series' | 'device' | 'tags' | 'fleet' | 'agent', string | null>> | null
  forSeconds?: number
}

export const rules = {
  /** A rule in a sentence, such as "boiler.temperature is above 82, for 60 s". */
  sentence({ condition, scope, forSeconds }: SaidRule): string {
    const said = conditions[condition.kind]?.({ ...condition }) ?? condition.kind
    const { series, device, tags, fleet, agent } = scope ?? {}
    const about = agent && watched[condition.kind] === 'an agent' ? 'one agent' : watched[condition.kind]
    const what = series || (device && `any series of ${device}`) || about || 'any series'
    const where = [
      ...(series && device ? [`of ${device}`] : []),
      ...(agent && what !== 'one agent' ? ['of one agent'] : fleet ? ['of one fleet'] : []),
      ...(tags ? [`where ${tags}`] : []),
    ]
    return `${[what, ...where, said].join(' ')}${forSeconds ? `, for ${forSeconds.toLocaleString()} s` : ''}`
  },
  title: 'Rules',
  tabs: { rules: 'Rules', channels: 'Who is told', silences: 'Silences' } as Record<string, string>,
  add: 'Add a rule',
  edit: 'Change the rule',
  none: 'No rule yet: nothing can wake anybody',
  noneHint:
    'A rule watches readings, devices, agents or the platform, and opens one incident when something is wrong.',
  enabled: 'On',
  disabled: 'Off',
  isOn: 'The rule is on',
  name: 'Name',
  severity: 'Severity',
  what: 'Fires when',
  kinds: {
    threshold: 'a value is too high or too low',
    rate: 'a value changes too fast',
    anomaly: 'a value is unusual (learned)',
    absence: 'a series sends nothing',
    stuck: 'a value does not move',
    quality: 'readings are of bad quality',
    comparison: 'two series differ',
    agent: 'an agent is offline or silent',
    job: 'a job fails',
    deadLetters: 'messages of an agent are refused',
    platform: 'the platform itself raises an alarm',
  } as Record<string, string>,
  above: 'Above',
  below: 'Below',
  clearBelow: 'Ends below',
  clearAbove: 'Ends above',
  per: 'Per',
  pers: { second: 'second', minute: 'minute', hour: 'hour', day: 'day' } as Record<string, string>,
  window: 'Over so many seconds',
  score: 'From this score (0.9 more, 0.99 fewer alarms)',
  tolerance: 'Moves by at most',
  qualities: 'Qualities',
  other: 'The other series',
  as: 'Compared as',
  difference: 'difference',
  ratio: 'ratio',
  count: 'At least so many',
  statuses: 'States',
  forSeconds: 'For at least (seconds)',
  forHint: 'How long it must last before anybody is woken.',
  cooldown: 'Not again for (seconds)',
  scope: 'Where',
  scopeHint:
    'Everything that is filled in must fit. Empty is everywhere. * and ? stand for any text and any letter.',
  series: 'Series or metric',
  device: 'Device',
  tags: 'Agents with tags',
  fleet: 'Fleet',
  groupBy: 'One incident for each',
  groups: { '': 'as usual for the condition', series: 'series', agent: 'agent', rule: 'rule' } as Record<
    string,
    string
  >,
  more: 'Maintenance, limits for some, labels (JSON)',
  moreHint:
    'limits: other bounds for some agents; active and maintenance: hours in which the rule counts, or does not; labels: by which channels choose; maxAgeSeconds, escalation: see docs/alerts.md. What is left out is as usual.',
  preview: 'What would have fired',
  previewRange: 'In the last',
  ranges: { '1d': 'day', '7d': '7 days', '30d': '30 days' } as Record<string, string>,
  tryIt: 'Try it',
  wouldFire: (times: number, series: number) =>
    times
      ? `It would have fired ${plural(times, 'time', 'times')}, in ${plural(series, 'series', 'series')}.`
      : 'It would not have fired.',
  tried: (readings: number, series: number) =>
    `Tried on ${plural(readings, 'reading', 'readings')} of ${plural(series, 'series', 'series')}.`,
  incomplete: 'There is more than could be tried in time; this is a part.',
  saved: 'The rule is saved. It is in force within a few seconds.',
  removed: 'The rule is removed.',
  removeText: 'Its open incidents are closed, and nothing is watched by it any more.',
  remove: 'Remove the rule',
  channels: {
    add: 'Add a channel',
    none: 'Nobody is told of incidents yet',
    noneHint: 'A channel is a webhook (Slack, Teams, PagerDuty, your own) or e-mail addresses.',
    kind: 'How',
    kinds: { webhook: 'Webhook (chat and others)', email: 'E-mail', apprise: 'Apprise' } as Record<
      string,
      string
    >,
    url: 'URL',
    urlHint: 'The address of the incoming webhook, which the chat or service shows when you add one there.',
    format: 'Format',
    formats: {
      slack: 'Slack, Mattermost, Rocket.Chat, Google Chat',
      teams: 'Microsoft Teams (a workflow)',
      standard: 'Standard Webhooks',
      alertmanager: 'Alertmanager',
      pagerduty: 'PagerDuty',
    } as Record<string, string>,
    routingKey: 'Routing key',
    to: 'Addresses, separated by commas',
    minSeverity: 'Told of incidents',
    severities: {
      info: 'of every severity',
      warning: 'from warning on',
      critical: 'only if critical',
    } as Record<string, string>,
    test: 'Send a test',
    tested: (seconds: number) => `The test message was delivered in ${seconds.toFixed(1)} s.`,
    testFailed: (error: string) => `The test message was not delivered: ${error}`,
    saved: 'The channel is saved.',
    removed: 'The channel is removed.',
    remove: 'Remove the channel',
    removeText: 'It is told of nothing from now on, not even of the end of what it was told.',
    enabled: 'On',
    told: 'Who is told',
    toldByChannel: 'every channel that chooses its severity',
    toldOnly: 'only these channels',
    onlyNamed: 'only of rules that name it',
    moreRoutes: (number: number) =>
      `It has ${plural(number, 'further route', 'further routes')}, which only the API changes.`,
    off: 'turned off',
    manage: 'Add or change channels',
  },
  silences: {
    none: 'Nothing is silenced',
    noneHint: 'Silence an incident from its list, or add a window of maintenance to a rule.',
    ends: 'ends',
    end: 'End it now',
    ended: 'The silence is over.',
    about: 'For',
    everything: 'everything',
  },
}
