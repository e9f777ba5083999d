"""The HTML pages on which people log in and consent."""
