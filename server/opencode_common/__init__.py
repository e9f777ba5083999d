"""What the relay, the fleet and their faces share: text, registrations, small files, words for validation errors."""
