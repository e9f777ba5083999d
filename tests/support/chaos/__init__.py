"""Prompts and asks over machines whose every hop is killed or cut at random, and what must be true at the end."""
