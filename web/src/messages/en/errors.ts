export const errors = {
  title: 'This could not be loaded',
  retry: 'Try again',
  unreachable:
    'The server cannot be reached. What you see may be out of date; the page tries again by itself.',
  unavailable: (detail: string) =>
    `A part of the platform is not available now (${detail}). Try again in a moment.`,
  forbidden: (detail: string) => `Your role does not allow this. ${detail}`,
  notFound: 'This does not exist, or no longer.',
  unknown: (detail: string) => `Something unexpected happened: ${detail}`,
}
