// Reads server-sent events from a response; `EventSource` cannot send an access token.

export interface ServerEvent {
  name: string
  data: string
}

/** The events of a stream as they arrive; an empty list stands for a comment, by which the stream shows that it lives. */
export async function* eventsOf(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<ServerEvent[]> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let waiting = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    waiting += value
    const blocks = waiting.split('\n\n')
    waiting = blocks.pop() ?? ''
    yield blocks.map(parse).filter((event) => event !== null)
  }
}

function parse(block: string): ServerEvent | null {
  let name = 'message'
  const data: string[] = []
  for (const line of block.split('\n')) {
    if (line.startsWith('event: ')) name = line.slice(7)
    else if (line.startsWith('data: ')) data.push(line.slice(6))
  }
  return data.length ? { name, data: data.join('\n') } : null
}
