"""What must be told to a person, and how it reaches them."""
