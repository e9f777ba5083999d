"""`opencode-relay doctor`: the whole relay, looked at as a phone and a laptop see it.

| module | reason to exist |
|---|---|
| `examination` | all checks at once, in bounded time |
| `web` | the public name, its ports, its certificate, and the way through them to the gateway |
| `ssh` | what laptops log in to |
| `inside` | agent, tunnels, record, the directory of the journal |
| `firewall`, `machine` | what else shuts a port; disk and clock |
| `relay`, `asking` | what there is to look at; how programs and ports are asked |
"""
