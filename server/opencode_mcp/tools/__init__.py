"""The tools, a module each: a coroutine function over the face, and how it is offered."""
