// The fields that each kind of condition of a rule has, and a condition to begin with.

export interface ConditionField {
  name: string
  type: 'number' | 'text' | 'choice' | 'choices'
  options?: readonly string[]
  /** Whether the rule makes no sense without it. */
  isNeeded?: boolean
}

export type Condition = { kind: string } & Record<string, unknown>

const BOUNDS: ConditionField[] = [
  { name: 'above', type: 'number' },
  { name: 'below', type: 'number' },
  { name: 'clearBelow', type: 'number' },
  { name: 'clearAbove', type: 'number' },
]

export const FIELDS: Record<string, ConditionField[]> = {
  threshold: BOUNDS,
  rate: [
    { name: 'above', type: 'number' },
    { name: 'below', type: 'number' },
    { name: 'per', type: 'choice', options: ['second', 'minute', 'hour', 'day'] },
    { name: 'windowSeconds', type: 'number' },
  ],
  anomaly: [{ name: 'score', type: 'number' }],
  absence: [],
  stuck: [{ name: 'tolerance', type: 'number' }],
  quality: [{ name: 'qualities', type: 'choices', options: ['bad', 'uncertain', 'stale', 'unknown'] }],
  comparison: [
    { name: 'other', type: 'text', isNeeded: true },
    { name: 'as', type: 'choice', options: ['difference', 'ratio'] },
    { name: 'above', type: 'number' },
    { name: 'below', type: 'number' },
  ],
  agent: [{ name: 'statuses', type: 'choices', options: ['offline', 'silent'] }],
  job: [{ name: 'statuses', type: 'choices', options: ['FAILED', 'TIMED_OUT', 'REJECTED'] }],
  deadLetters: [{ name: 'count', type: 'number' }],
  platform: [],
}

/** Kinds that watch series of readings, and so can be tried on the past. */
export const OF_SERIES = new Set([
  'threshold',
  'rate',
  'anomaly',
  'absence',
  'stuck',
  'quality',
  'comparison',
])

export function newCondition(kind: string): Condition {
  const defaults: Record<string, Record<string, unknown>> = {
    threshold: { above: null },
    rate: { above: null, per: 'minute', windowSeconds: 60 },
    anomaly: { score: 0.93 },
    stuck: { tolerance: 0 },
    quality: { qualities: ['bad'] },
    comparison: { other: '', as: 'difference', above: null },
    agent: { statuses: ['offline'] },
    job: { statuses: ['FAILED', 'TIMED_OUT'] },
    deadLetters: { count: 1 },
  }
  return { kind, ...defaults[kind] }
}

/** The values at which a line can be drawn across a chart of what a rule watches. */
export function boundsOf(rule: { condition: { kind: string }; limits?: unknown[] }): number[] {
  // Which of the limits counts for a series depends on its agent's tags.
  if (rule.condition.kind !== 'threshold' || rule.limits?.length) return []
  const { above, below } = rule.condition as Condition
  return [above, below].filter((bound) => typeof bound === 'number')
}

/** A condition without the fields that were left empty. */
export function filled(condition: Condition): Condition {
  return Object.fromEntries(
    Object.entries(condition).filter(([, value]) => value !== null && value !== '' && value !== undefined),
  ) as Condition
}
