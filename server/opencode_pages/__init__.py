"""Pages on which a person sees what needs them, and decides it: for a browser, whoever serves them."""
