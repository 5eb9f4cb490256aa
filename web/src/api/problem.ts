/** An answer of the API that is no success, as RFC 9457 describes it. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    detail: string,
    /** What is wrong with which field of the request. */
    readonly fields: { path: string; message: string }[] = [],
    /** For status 412: what stands there now. */
    readonly current: unknown = undefined,
  ) {
    super(detail)
  }
}

/** The problem that stands for a request without any answer. */
export const UNREACHABLE = 0

export async function problemOf(response: Response): Promise<Problem> {
  const text = await response.text()
  try {
    const body = JSON.parse(text) as {
      title?: string
      detail?: string
      errors?: { path: string; message: string }[]
      current?: unknown
    }
    return new Problem(
      response.status,
      body.title ?? '',
      body.detail ?? response.statusText,
      body.errors,
      body.current,
    )
  } catch {
    return new Problem(response.status, response.statusText, text.slice(0, 300))
  }
}
