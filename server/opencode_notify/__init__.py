"""What must be told to a person, as the journal has it, and the outlets that tell it."""
