"""The subcommands: one module per verb, each with a function that returns a `CommandResult`."""
