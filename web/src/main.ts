import './styles/tokens.css'
import './styles/base.css'
import './styles/floating.css'
import { mount } from 'svelte'
import App from './shell/App.svelte'
import { applyTheme } from './shell/theme.svelte'

applyTheme()
mount(App, { target: document.getElementById('app')! })
