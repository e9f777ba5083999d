"""Hosts: the containers of the Molecule scenarios, what runs on them, and parts of the roles on this machine."""
