// The shared worker: one connection for all tabs of the browser, which follows the agents that any of them shows.
import { LiveConnection } from './live-connection'
import type { FromWorker, ToWorker } from './live-messages'

const GONE = 180_000 // ms without a message until a tab counts as closed; hidden tabs wake once a minute

interface Tab {
  agents: string[]
  heardAt: number
}

const tabs = new Map<MessagePort, Tab>()
/** The tab that asked last is the likeliest to be awake, and one is enough to renew a token. */
let lastHeard: MessagePort | null = null
let answerToken: (token: string | null) => void = () => undefined

function tellAll(message: FromWorker): void {
  for (const port of tabs.keys()) port.postMessage(message)
}

function askForToken(): Promise<string | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), 5000)
    const asked = lastHeard ?? [...tabs.keys()].at(-1)
    asked?.postMessage({ tokenWanted: true } satisfies FromWorker)
    // A tab that was closed does not answer.
    const again = setTimeout(() => tellAll({ tokenWanted: true }), 1500)
    answerToken = (token) => {
      clearTimeout(timer)
      clearTimeout(again)
      resolve(token)
    }
  })
}

const connection = new LiveConnection(
  askForToken,
  ({ name, data }) => tellAll({ event: name, data: JSON.parse(data) as unknown }),
  (status) => tellAll({ status }),
)

function follow(): void {
  for (const [port, tab] of tabs) if (Date.now() - tab.heardAt > GONE) tabs.delete(port)
  connection.follow([...tabs.values()].flatMap((tab) => tab.agents))
}

function hear(port: MessagePort, message: ToWorker): void {
  const tab = tabs.get(port) ?? { agents: [], heardAt: 0 }
  tab.heardAt = Date.now()
  if ('leave' in message) tabs.delete(port)
  else tabs.set(port, tab)
  lastHeard = 'leave' in message ? null : port
  if ('token' in message) answerToken(message.token)
  else if ('retry' in message) connection.retry()
  else if ('reset' in message) connection.reset()
  else {
    if ('follow' in message) tab.agents = message.follow
    follow()
  }
}

addEventListener('connect', (event) => {
  const port = (event as MessageEvent).ports[0]!
  port.onmessage = ({ data }: MessageEvent<ToWorker>) => hear(port, data)
  port.postMessage({ status: connection.status } satisfies FromWorker)
})
