// All texts of the dashboard. A translation is another object of the type `Messages`, chosen here.
import { en } from './en'

export type Messages = typeof en

export const m: Messages = en
