"""What people and programs get: the texts and the structured results of the tools."""
