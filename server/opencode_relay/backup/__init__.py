"""What of a relay is not derived, in one file, and back onto another host.

| module | reason to exist |
|---|---|
| `commands` | the two commands: what is checked, in which order it is done, what is said |
| `host` | where each part lies on this host, by names of accounts |
| `gateway_files` | the gateway's part, read and written as the gateway's account |
| `archive`, `tar` | the file: its manifest, and what is believed of it |
"""
