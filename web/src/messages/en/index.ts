import { agent } from './agent'
import { agents } from './agents'
import { common } from './common'
import { dashboards } from './dashboards'
import { enrolment } from './enrolment'
import { errors } from './errors'
import { explore } from './explore'
import { fleet } from './fleet'
import { incidents } from './incidents'
import { jobs } from './jobs'
import { login } from './login'
import { operations } from './operations'
import { rules } from './rules'
import { settings } from './settings'
import { shell } from './shell'
import { timeline } from './timeline'

export const en = {
  ...{ agent, agents, common, enrolment, errors, explore, fleet, incidents, jobs, login, operations, rules },
  ...{ dashboards, settings, shell, timeline },
}
