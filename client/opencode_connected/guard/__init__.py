"""The guard: a loopback reverse proxy between the tunnel and the agent on this machine (docs/contract.md).

It adds the agent's password, which never leaves the machine, and lets through only what this product uses, in
directories that the laptop's owner opened. Dependencies point down:

    server      listens, knows who may come in at all
    gate        one request: route, right, directory, body, answer
    stream      one event stream, filtered, thinned and bounded
    reach       which directories and sessions may be seen
    calls       calls to the agent, also while it moves
    apis        what is let through, a table per generation: opencode1, opencode2
    routes      what a table is made of
    filters, bodies    checks of answers and of bodies
    thinning    what goes on of messages and events, a table per generation: thinned1, thinned2
    refusals    what is answered to whom is refused, and logged
    policy, upstream   what the launcher tells the guard
"""
