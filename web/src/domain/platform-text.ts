// The sentences of the API: commands stand in backticks, and times are written in UTC.

export interface Part {
  kind: 'text' | 'code' | 'time'
  /** A time is in the form of ISO 8601. */
  text: string
}

const SPECIAL = /`([^`\n]+)`|(\d{4}-\d\d-\d\d) (\d\d:\d\d(?::\d\d)?) UTC/g

/** The parts of a sentence in their order. */
export function parts(text: string): Part[] {
  const found: Part[] = []
  let end = 0
  for (const match of text.matchAll(SPECIAL)) {
    if (match.index > end) found.push({ kind: 'text', text: text.slice(end, match.index) })
    if (match[1] !== undefined) found.push({ kind: 'code', text: match[1] })
    else {
      const time = `${match[2]}T${match[3]}Z`
      const isTime = !Number.isNaN(Date.parse(time)) // what devices say is in these sentences, too
      found.push(isTime ? { kind: 'time', text: time } : { kind: 'text', text: match[0] })
    }
    end = match.index + match[0].length
  }
  if (end < text.length) found.push({ kind: 'text', text: text.slice(end) })
  return found
}
