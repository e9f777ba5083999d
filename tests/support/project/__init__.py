"""What the project's own commands run: documentation, role READMEs, icons, and programs from registries."""
