"""Tells a person: a notice goes to an outlet, and a receipt comes back. Knows of no asks, people or rules."""
