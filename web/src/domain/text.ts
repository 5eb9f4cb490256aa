// Text that devices control. It is never markup; what is invisible in it is made visible.

// Controls, and the marks that turn the direction of what follows or hide between letters.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g

/** The text with each invisible character as its code in angle brackets, such as ⟨202E⟩. */
export function visible(text: string): string {
  return text.replace(
    INVISIBLE,
    (char) => `⟨${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`,
  )
}
